//! One list of requests and expected answers, asked of the embedded API server and of the real one.
//!
//! The embedded server is asked always. The real one is asked where `PROCESSHUB_CLUSTER_TESTS=local` says that there may
//! be a local cluster.

// Said once more for clippy, which lets only what is under it unwrap.
#[cfg(test)]
mod builtin;
#[cfg(test)]
mod custom;
#[cfg(test)]
mod talk;
#[cfg(test)]
mod watching;
#[cfg(test)]
mod writing;

#[cfg(test)]
mod suite {
    use crate::talk::Talk;
    use crate::{builtin, custom, watching, writing};
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::{Client, Config};
    use processhub_embedded_cluster::{EmbeddedCluster, Options};
    use std::path::Path;
    use std::pin::Pin;

    /// A case: its name and its conversation.
    pub type Case = (&'static str, fn(Talk) -> Pin<Box<dyn Future<Output = ()> + Send>>);

    /// Names functions as cases.
    #[macro_export]
    macro_rules! cases {
        ($($name:ident),* $(,)?) => {
            /// The cases of this module.
            pub const CASES: &[$crate::suite::Case] =
                &[$((stringify!($name), |talk| Box::pin($name(talk)))),*];
        };
    }

    async fn run(kubeconfig: &Path) {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        custom::install(&client).await;
        let mut failed = Vec::new();
        for (name, case) in [builtin::CASES, custom::CASES, watching::CASES, writing::CASES].concat() {
            let talk = Talk::begin(client.clone(), name).await;
            // Each in a task of its own: one that fails does not keep the others from being asked.
            if let Err(error) = tokio::spawn(case(talk)).await {
                failed.push(format!("{name}: {error}"));
            }
        }
        custom::uninstall(&client).await;
        assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    }

    #[tokio::test]
    async fn the_embedded_api_server_answers_as_expected() {
        let cluster = EmbeddedCluster::start(Options::default()).await.unwrap();
        run(&cluster.kubeconfig()).await;
        cluster.shutdown().await;
    }

    #[tokio::test]
    async fn the_real_api_server_answers_as_expected() {
        if !processhub_local_cluster::wanted("conformance") {
            return;
        }
        let up = || {
            processhub_local_cluster::LocalCluster::up(processhub_local_cluster::Options {
                name: "conform".to_owned(),
                dir: processhub_local_cluster::default_dir("conform"),
                nodes: 0,
                ..Default::default()
            })
        };
        let cluster = tokio::task::spawn_blocking(up).await.unwrap().unwrap();
        run(&cluster.kubeconfig()).await;
        tokio::task::spawn_blocking(|| cluster.down()).await.unwrap().unwrap();
    }
}
