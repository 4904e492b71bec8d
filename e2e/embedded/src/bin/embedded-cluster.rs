//! Runs an embedded cluster until it is interrupted, for looking at it with kubectl.

use clap::Parser;
use processhub_embedded_cluster::{EmbeddedCluster, ImageSpec, Options};

/// An embedded Kubernetes cluster.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many nodes it has.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// An image, as NAME=PROGRAM; may be repeated.
    #[arg(long = "image", value_parser = image)]
    images: Vec<(String, ImageSpec)>,
}

fn image(text: &str) -> Result<(String, ImageSpec), String> {
    let (name, program) = text.split_once('=').ok_or("expected NAME=PROGRAM")?;
    Ok((name.to_owned(), ImageSpec::new(program)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let options = Options { images: arguments.images.into_iter().collect(), ..Options::default() };
    let cluster = EmbeddedCluster::start(options.with_nodes(arguments.nodes)).await?;
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    tokio::signal::ctrl_c().await?;
    cluster.shutdown().await;
    Ok(())
}
