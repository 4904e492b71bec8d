//! The machine that load comes from: on the cluster's network, with kube-proxy and the cluster's names, but no node, so
//! that the loss of any node leaves it whole.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use crate::command::{run, run_with_input, wait_until, write_file};
use crate::config;
use crate::error::Result;
use crate::machine::Machine;
use crate::network::{self, tool};
use crate::plan::CLIENT;
use crate::slots;
use crate::tools::Tool;

const PROXY: &str = "client/proxy";
const PROXY_READY: Duration = Duration::from_secs(40);

/// Makes the machine and returns when its kube-proxy works.
///
/// kube-proxy waits half a minute for a Node object of its own name. One is shown to it and taken away again; afterwards
/// it does not miss it.
pub(crate) fn start(machine: &Machine) -> Result<()> {
    let namespace = machine.namespace(slots::CLIENT);
    network::attach(&machine.control_plane(), &namespace, slots::CLIENT, CLIENT, None)?;
    write_file(&machine.layout.config("resolv.conf"), &config::client_resolver())?;
    let kubeconfig = machine.enroll("client-proxy", "system:kube-proxy", None)?;
    let path = machine.layout.config("client-proxy.json");
    write_file(&path, &config::proxy(slots::CLIENT, CLIENT, &kubeconfig).to_string())?;

    let node = config::bare_node(slots::CLIENT, CLIENT).to_string();
    run_with_input(machine.kubectl()?.args(["create", "--validate=false", "--filename=-"]), &node)?;
    let mut proxy = namespace.command(machine.tools.provide(Tool::Testcluster)?);
    proxy.arg("proxy").arg(format!("--config={}", path.display()));
    machine.start(PROXY, &proxy)?;
    let ready = wait_until("kube-proxy for clients", PROXY_READY, &machine.layout.log(PROXY), || {
        run(namespace.command("iptables").args(["--table", "nat", "--list", "KUBE-SERVICES", "-n"])).is_ok()
    });
    run(machine.kubectl()?.args(["delete", "node", slots::CLIENT, "--wait=false"]))?;
    ready
}

/// A command that runs `program` there, with the cluster's name server as the machine's. It is replaced by the program
/// without a fork, so that its process id and its end are the program's own.
pub(crate) fn command(machine: &Machine, program: &OsStr) -> Command {
    let mut command = tool("nsenter");
    command.arg(format!("--net={}", machine.namespace(slots::CLIENT).path().display()));
    command.args(["--", "unshare", "--mount", "--", "sh", "-c"]);
    command.arg(r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#);
    command.arg(machine.layout.config("resolv.conf")).arg(program);
    command
}
