//! Time and randomness, behind small traits so that tests and simulations can stand in for them.

use std::io;

use processhub_protocol::id::BootId;

/// A clock that goes on while the machine is suspended and that nobody sets. Only differences mean anything.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since an arbitrary moment.
    fn milliseconds(&self) -> u64;
}

/// `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn milliseconds(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
        seconds * 1000 + nanoseconds / 1_000_000
    }
}

/// 128 random bits in hexadecimal.
///
/// # Errors
/// When the system has no randomness to give.
pub fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A boot of its own.
///
/// # Errors
/// As [`random_id`].
pub fn random_boot() -> io::Result<BootId> {
    random_id().map(BootId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back_and_boots_differ() {
        let first = BootClock.milliseconds();
        assert!(first > 0 && BootClock.milliseconds() >= first);
        assert_ne!(random_boot().unwrap(), random_boot().unwrap());
    }
}
