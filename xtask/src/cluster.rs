//! `cargo xtask cluster`: the local cluster, by hand.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use processhub_e2e::artifacts::Binaries;
use processhub_local_cluster::{LocalCluster, Options, build_tools, default_dir, take_down};

#[derive(Args)]
pub struct Arguments {
    /// The cluster's name, which prefixes its network namespaces
    #[arg(long, default_value = "phk", env = "PROCESSHUB_CLUSTER_NAME")]
    name: String,
    /// The directory that holds all of the cluster [default: `.cluster/NAME` of this repository]
    #[arg(long, env = "PROCESSHUB_CLUSTER_DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build all programs that a cluster needs, so that nothing later waits for it
    Build {
        /// Install missing Debian packages
        #[arg(long)]
        install: bool,
    },
    /// Start a cluster, which runs until `down`
    Up {
        /// How many nodes to start with
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Let etcd wait for the disk, as in a real cluster
        #[arg(long)]
        fsync: bool,
        /// Seconds for which a silent node counts as Ready
        #[arg(long, default_value_t = 8)]
        node_monitor_grace: u64,
        /// An image file that every node gets
        #[arg(long = "image")]
        images: Vec<PathBuf>,
        /// Install missing Debian packages
        #[arg(long)]
        install: bool,
    },
    /// Add a node
    Join { name: Option<String> },
    /// Cut the power of a node, for good; nobody is told
    Leave { node: String },
    /// Cut the power of a node, which keeps its disk
    PowerOff { node: String },
    /// Start a node that was powered off
    PowerOn { node: String },
    /// Pull a node's network cable
    Cut { node: String },
    /// Put a node's network cable back
    Heal { node: String },
    /// Load an image file into all nodes, and all that will join
    Load {
        #[arg(required_unless_present = "built")]
        image: Option<PathBuf>,
        /// Load the images of this checkout, which are built first
        #[arg(long)]
        built: bool,
    },
    /// Print the path of a kubeconfig that works from this machine
    Kubeconfig,
    /// Kill the API server
    StopApiserver,
    /// Start the API server again
    StartApiserver,
    /// Run kubectl of the cluster's version
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run helm
    #[command(disable_help_flag = true)]
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a program where clients run: on the cluster's network, with its names, on no node
    Client {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Run a program in the network of a node
    On {
        node: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Take the cluster down, or what is left of one
    Down,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let dir = arguments.dir.unwrap_or_else(|| default_dir(&arguments.name));
    let dir = std::path::absolute(dir)?;
    let cluster = || LocalCluster::attach(&dir);
    match arguments.command {
        Command::Build { install } => build_tools(install)?,
        Command::Up { nodes, fsync, node_monitor_grace, images, install } => {
            let node_monitor_grace = Duration::from_secs(node_monitor_grace);
            let name = arguments.name;
            let options = Options { name, dir, nodes, fsync, node_monitor_grace, install, images };
            let cluster = LocalCluster::up(options)?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
            cluster.detach()?;
        }
        Command::Join { name } => println!("{}", cluster()?.join(name.as_deref())?),
        Command::Leave { node } => cluster()?.leave(&node)?,
        Command::PowerOff { node } => cluster()?.power_off(&node)?,
        Command::PowerOn { node } => cluster()?.power_on(&node)?,
        Command::Cut { node } => cluster()?.cut(&node)?,
        Command::Heal { node } => cluster()?.heal(&node)?,
        Command::Load { image, built } => {
            let cluster = cluster()?;
            let built = if built { Binaries::build()?.images()? } else { Vec::new() };
            for image in built.iter().chain(&image) {
                cluster.load(image)?;
            }
        }
        Command::Kubeconfig => println!("{}", cluster()?.kubeconfig().display()),
        Command::StopApiserver => cluster()?.stop_apiserver()?,
        Command::StartApiserver => cluster()?.start_apiserver()?,
        Command::Kubectl { arguments } => become_command(cluster()?.kubectl()?, &arguments)?,
        Command::Helm { arguments } => become_command(cluster()?.helm()?, &arguments)?,
        Command::Client { command } => {
            let (program, rest) = split(&command)?;
            become_command(cluster()?.client_command(program), rest)?;
        }
        Command::On { node, command } => {
            let (program, rest) = split(&command)?;
            become_command(cluster()?.node_command(&node, program)?, rest)?;
        }
        Command::Down => take_down(&arguments.name, &dir)?,
    }
    Ok(())
}

fn split(command: &[OsString]) -> anyhow::Result<(&OsString, &[OsString])> {
    command.split_first().ok_or_else(|| anyhow::anyhow!("name a program to run"))
}

/// Goes on as that command, so that its input, output, signals and exit code are this process's own.
fn become_command(mut command: std::process::Command, arguments: &[OsString]) -> anyhow::Result<()> {
    let error = command.args(arguments).exec();
    Err(anyhow::anyhow!("{}: {error}", command.get_program().to_string_lossy()))
}
