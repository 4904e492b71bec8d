//! The address plan: fixed, so that every route can be laid at once and none has to follow joins and leaves.
//!
//! All addresses live in network namespaces of one machine; they need not differ between two clusters.

use std::net::Ipv4Addr;

use crate::error::{Error, Result};

/// The most nodes that one cluster can see in its life, left ones included.
pub const MAX_NODES: u8 = 200;

/// Pods of all nodes.
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
/// Addresses of Services.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The first address of [`SERVICE_CIDR`], which the API server takes for itself.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The name server's Service; pods ask the name server directly, this is for who looks it up as a Service.
pub(crate) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// API server and name server.
pub(crate) const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// Where load clients run.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 5);
/// Prefix length of the network that all of the above but pods and Services are on.
pub(crate) const NETWORK_PREFIX: u8 = 16;
/// The API server's port, in the control plane's namespace.
pub(crate) const API_PORT: u16 = 6443;
/// Where to look for a free port of the host for the API server: below the ports that outgoing connections take.
pub(crate) const FORWARD_PORTS: std::ops::Range<u16> = 26443..26643;

/// Address of the node in `slot` (1 to [`MAX_NODES`]).
pub(crate) fn node_address(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 1, slot)
}

/// The addresses that the pods of the node in `slot` get.
pub(crate) fn pod_subnet(slot: u8) -> String {
    format!("10.244.{slot}.0/24")
}

/// Routes to the pods of all nodes but the one in `own`, in the format of `ip -batch`.
pub(crate) fn pod_routes(own: Option<u8>) -> String {
    (1..=MAX_NODES)
        .filter(|slot| Some(*slot) != own)
        .map(|slot| format!("route add {} via {}\n", pod_subnet(slot), node_address(slot)))
        .collect()
}

/// Checks a name that becomes part of namespaces, hosts and files.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<()> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = (1..=30).contains(&name.len())
        && name.chars().all(|c| letter(c) || c == '-')
        && name.starts_with(letter)
        && name.ends_with(letter);
    if good {
        return Ok(());
    }
    Err(Error::Invalid {
        field,
        value: name.to_owned(),
        rule: "use 1 to 30 lower-case letters, digits and inner hyphens",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_machines_share_an_address() {
        let mut seen = BTreeSet::from([CONTROL_PLANE, CLIENT]);
        for slot in 1..=MAX_NODES {
            assert!(seen.insert(node_address(slot)), "slot {slot}");
        }
    }

    #[test]
    fn a_node_routes_to_all_pods_but_its_own() {
        let routes = pod_routes(Some(7));
        assert_eq!(routes.lines().count(), usize::from(MAX_NODES) - 1);
        assert!(!routes.contains("10.244.7.0/24"));
        assert!(routes.contains("route add 10.244.8.0/24 via 172.30.1.8\n"));
    }

    #[test]
    fn names_that_could_leave_a_directory_or_break_a_host_name_are_refused() {
        for name in ["", "..", "a/b", "-a", "a-", "A", "a b", &"a".repeat(31)] {
            assert!(check_name("node", name).is_err(), "{name:?}");
        }
        assert!(check_name("node", "node-1").is_ok());
    }
}
