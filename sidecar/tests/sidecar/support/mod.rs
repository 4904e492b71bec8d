//! Real sidecars in front of real workers, each on a runtime of its own so that it can be killed at any moment, and the
//! few calls of an operator.

pub mod live;
pub mod load;
pub mod operator;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use processhub_protocol::id::{Epoch, PodUid, ProcessUid};
use processhub_protocol::wire::{Addressee, CheckpointClass, Peer};
use processhub_sidecar::auth::Credentials;
use processhub_sidecar::clock::{BootClock, Clock};
use processhub_sidecar::config::{Checkpoint, Config, HoldLimits, Protocol};
use processhub_sidecar::net::Tcp;
use processhub_sidecar::server::Running;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
pub const PORT: u16 = 8080;
pub const CONTROL_PORT: u16 = 9710;
pub const WORKER_CONTROL: u16 = 9700;

/// Nothing in a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A pod: its disk, and whichever of sidecar and worker runs. Everything ends when it is dropped.
pub struct Pod {
    pub config: Config,
    _disk: TempDir,
    sidecar: Mutex<Option<Runtime>>,
    worker: Mutex<Option<Runtime>>,
    clock: Arc<Shifted>,
}

/// The machine's clock, further on.
#[derive(Default)]
pub struct Shifted(AtomicU64);

impl Clock for Shifted {
    fn milliseconds(&self) -> u64 {
        BootClock.milliseconds() + self.0.load(Ordering::SeqCst)
    }
}

/// A pod's address and the address of its loopback: nobody else's, in this and other test processes.
fn addresses() -> (IpAddr, IpAddr) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 255, "one test process has no more addresses");
    let process = std::process::id();
    let (high, middle) = ((process >> 7) as u8, ((process & 127) << 1) as u8);
    let pod = [127, 64 | (high & 63), middle, number as u8];
    let inside = [127, 128 | (high & 63), middle, number as u8];
    (pod.into(), inside.into())
}

impl Pod {
    /// A pod of the process `p`, created with `born`; nothing runs in it yet.
    pub fn new(name: &str, born: u64) -> Self {
        let disk = tempfile::tempdir().unwrap();
        let (address, inside) = addresses();
        let config = Config {
            namespace: "default".into(),
            hub: "counters".into(),
            name: "counter-0".into(),
            process: ProcessUid::from("p"),
            pod: PodUid::from(name),
            born: Epoch(born),
            control: SocketAddr::new(address, CONTROL_PORT),
            data: SocketAddr::new(address, PORT),
            worker_control: SocketAddr::new(inside, WORKER_CONTROL),
            worker_listen: SocketAddr::new(inside, PORT),
            protocol: Protocol::Http,
            gated: false,
            leased: false,
            // Tests of checkpoints choose another one. Elsewhere a kept state would hide what is lost.
            checkpoint: Checkpoint { class: Some(CheckpointClass::None), ..Checkpoint::default() },
            state_dir: disk.path().join("state"),
            hold: HoldLimits::default(),
            retention: Duration::from_millis(100),
            hook_bound: PATIENCE,
            credentials: Credentials::from_hex(KEY).unwrap(),
        };
        let clock = Arc::default();
        Self { config, _disk: disk, sidecar: Mutex::default(), worker: Mutex::default(), clock }
    }

    /// A pod in which sidecar and counter run.
    pub fn running(name: &str, born: u64) -> Self {
        let pod = Self::new(name, born);
        pod.start_sidecar();
        pod.start_counter(|_| {});
        pod
    }

    pub fn start_sidecar(&self) {
        let runtime = runtime();
        let (config, clock) = (self.config.clone(), Arc::clone(&self.clock));
        let (started, start) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let running = Running::start(config, Arc::new(Tcp), clock).await;
            started.send(running.as_ref().map(|_| ()).map_err(ToString::to_string)).unwrap();
            // Lives as long as the runtime.
            let _running = running;
            std::future::pending::<()>().await;
        });
        start.recv().unwrap().unwrap();
        *self.sidecar.lock().unwrap() = Some(runtime);
    }

    /// Its clock is so much further on from now on, as on a machine that was suspended.
    pub fn time_passes(&self, milliseconds: u64) {
        self.clock.0.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// As SIGKILL: whatever it was doing is left as it is.
    pub fn kill_sidecar(&self) {
        kill(self.sidecar.lock().unwrap().take());
    }

    pub fn start_counter(&self, change: impl FnOnce(&mut counter::Config)) {
        let at = processhub_sdk::Config {
            namespace: "default".into(),
            hub: "counters".into(),
            process: "counter-0".into(),
            control: self.config.worker_control,
            listen: self.config.worker_listen,
            probe_paths: Vec::new(),
            shutdown_grace: Duration::ZERO,
        };
        let mut config = counter::Config::new(at);
        change(&mut config);
        self.start_worker(async move {
            counter::serve(config, std::future::pending()).await.unwrap();
        });
    }

    /// Any worker.
    pub fn start_worker(&self, worker: impl Future<Output = ()> + Send + 'static) {
        let runtime = runtime();
        runtime.spawn(worker);
        *self.worker.lock().unwrap() = Some(runtime);
    }

    pub fn kill_worker(&self) {
        kill(self.worker.lock().unwrap().take());
    }

    pub fn addressee(&self) -> Addressee {
        Addressee { process: self.config.process.clone(), pod: self.config.pod.clone() }
    }

    pub fn peer(&self) -> Peer {
        let control = self.config.control;
        Peer::of_this_hub(self.config.pod.clone(), control.ip().to_string(), control.port())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        kill(self.sidecar.lock().unwrap().take());
        kill(self.worker.lock().unwrap().take());
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn kill(runtime: Option<Runtime>) {
    if let Some(runtime) = runtime {
        // Waits until its tasks are dropped, so that its sockets are closed; on a thread of its own, because a runtime does
        // not end within another one.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }
}
