//! The addresses of a cluster, all of them loopback, so that nothing has to be set up and nothing leaves the machine.
//!
//! The first cluster on a machine uses 127.0.0.0/16 for pods, 127.1.0.0/16 for their loopbacks, 127.2.0.0/16 for services
//! and 127.3.0.0/16 for nodes; every further one that runs beside it the next four.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

const BLOCKS: u8 = 32;

/// A share of 127.0.0.0/8 that belongs to one cluster while this value lives.
#[derive(Debug)]
pub struct Subnet {
    block: u8,
    _lock: File,
}

impl Subnet {
    /// Takes the first share that no running cluster holds; `directory` is where all clusters of the machine keep their
    /// locks.
    ///
    /// # Errors
    /// When the locks cannot be written, or all shares are held.
    pub fn take(directory: &Path) -> io::Result<Self> {
        for block in 0..BLOCKS {
            let path = directory.join(format!("processhub-embedded-{block}.lock"));
            let lock = OpenOptions::new().create(true).append(true).open(path)?;
            if lock.try_lock().is_ok() {
                return Ok(Self { block, _lock: lock });
            }
        }
        Err(io::Error::other(format!(
            "{BLOCKS} embedded clusters run on this machine already; end one of them"
        )))
    }

    /// The number of the share; 0 is the first.
    pub fn block(&self) -> u8 {
        self.block
    }

    fn second(&self, offset: u8) -> u8 {
        self.block * 4 + offset
    }

    /// The network of the services.
    pub fn services(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second(2), 0, 0)
    }

    /// The address of a node; nodes are numbered from 1.
    pub fn node(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second(3), 0, node)
    }

    /// The address of a node's pod; pods are numbered from 1.
    pub fn pod(&self, node: u8, pod: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second(0), node, pod)
    }
}

/// The address that is a pod's own loopback.
pub fn loopback_of(pod: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = pod.octets();
    Ipv4Addr::new(a, b + 1, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_beside_each_other_share_no_address() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (Subnet::take(directory.path()).unwrap(), Subnet::take(directory.path()).unwrap());
        assert_eq!(a.pod(1, 2), Ipv4Addr::new(127, 0, 1, 2));
        assert_eq!(loopback_of(a.pod(1, 2)), Ipv4Addr::new(127, 1, 1, 2));
        assert_eq!(b.pod(1, 2), Ipv4Addr::new(127, 4, 1, 2));
        drop(a);
        assert_eq!(Subnet::take(directory.path()).unwrap().block(), 0);
    }
}
