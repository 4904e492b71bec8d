//! What comes in: uploaded, checked, and given to the application.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::contract::machine::Step;
use processhub_protocol::contract::{ApplyRequest, ErrorBody, ErrorCode, Name, PartName, Reason};
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::{Answer, Core, Work, internal, lock};
use crate::plan::{Plan, StartAt, Store};
use crate::restore::{RestoreError, Staged, unpack};
use crate::shell::{self, Named};

impl Core {
    /// Whether a state is taken now.
    ///
    /// # Errors
    /// `WrongState` unless in Standby.
    pub fn upload(&self) -> Answer<()> {
        self.machine(|machine| machine.upload())
    }

    /// `PUT /v1/import/{import}/{part}`.
    ///
    /// # Errors
    /// `WrongState`, and those of [`crate::import::Import::put`].
    pub async fn put(
        self: &Arc<Self>,
        import: Name,
        part: PartName,
        offset: u64,
        slice: Bytes,
    ) -> Answer<()> {
        self.alone(move |core: Arc<Self>, mut work: OwnedMutexGuard<Work>| async move {
            core.upload()?;
            work.import.put(&import, &part, offset, slice).await
        })
        .await
    }

    /// `DELETE /v1/import/{import}`.
    ///
    /// # Errors
    /// None but those of the adapter itself.
    pub async fn delete_import(self: &Arc<Self>, import: Name) -> Answer<()> {
        self.alone(move |_: Arc<Self>, mut work: OwnedMutexGuard<Work>| async move {
            work.import.delete(&import).await;
            Ok(())
        })
        .await
    }

    /// `POST /v1/import/{import}/apply`: what came in is the application's state.
    ///
    /// # Errors
    /// The machine's; `CannotAccept` for a version that it does not know, a broken archive, or a load that failed.
    pub async fn apply(self: &Arc<Self>, import: Name, request: ApplyRequest) -> Answer<()> {
        self.alone(move |core: Arc<Self>, mut work: OwnedMutexGuard<Work>| async move {
            if core.machine(|machine| machine.apply(&import, &request))? == Step::Again {
                return Ok(());
            }
            core.accepts(&request)?;
            let path = work.import.complete(&import, &request.parts).await?;
            let recovered = request.reason == Reason::Crash && core.owned();
            match &core.plan.store {
                Store::Directory(_) if recovered => tracing::warn!(
                    "the directory outlived the crash and is newer than the state that was kept: it stays as it is"
                ),
                Store::Directory(directory) => {
                    let staged = core.stage(path, directory).await?;
                    if request.dry_run {
                        return Ok(());
                    }
                    core.fresh(&mut work).await?;
                    core.disown()?;
                    spawn_blocking(move || staged.install()).await.map_err(internal)?.map_err(internal)?;
                    work.loaded = true;
                    core.try_out(&mut work).await?;
                }
                // What a load would say only a load can tell; the rest was looked at.
                Store::Commands { .. } if request.dry_run => return Ok(()),
                Store::Commands { load, .. } => {
                    core.load(&mut work, load, &path).await?;
                    core.try_out(&mut work).await?;
                }
            }
            let mut face = lock(&core.face);
            face.seq = request.seq;
            face.machine.applied(&import, &request);
            Ok(())
        })
        .await
    }

    async fn stage(&self, archive: PathBuf, directory: &Path) -> Answer<Staged> {
        let (directory, most) = (directory.to_owned(), self.plan.limits.state_bytes);
        let staged = spawn_blocking(move || {
            let archive = std::fs::File::open(&archive)
                .map_err(|why| RestoreError::Disk { what: format!("open {}", archive.display()), why })?;
            unpack(io::BufReader::with_capacity(256 << 10, archive), &directory, most)
        });
        staged.await.map_err(internal)?.map_err(|error| {
            let code = match error {
                RestoreError::Broken(_) => ErrorCode::CannotAccept,
                RestoreError::TooLarge(_) => ErrorCode::TooLarge,
                RestoreError::Disk { .. } => ErrorCode::Internal,
            };
            ErrorBody::new(code, &error.to_string())
        })
    }

    async fn load(&self, work: &mut Work, load: &str, path: &Path) -> Answer<()> {
        self.fresh(work).await?;
        if self.plan.start == StartAt::Standby {
            self.serve(work).await?;
        }
        work.loaded = true;
        let named = Named { option: "--load", command: load };
        let environment = self.environment(work);
        let loaded = shell::load(named, &environment, self.plan.limits.load, path).await;
        loaded.map_err(|error| ErrorBody::new(ErrorCode::CannotAccept, &error.to_string()))
    }

    /// Whether the application can start with what came in, while the source can still go on.
    async fn try_out(&self, work: &mut Work) -> Answer<()> {
        if self.plan.start != StartAt::Load {
            return Ok(());
        }
        let served = self.serve(work).await;
        served.map_err(|refusal| ErrorBody::new(ErrorCode::CannotAccept, &refusal.message))
    }

    /// An application that runs with another state is stopped: the next load, or an initial state, meets nothing.
    pub(super) async fn fresh(&self, work: &mut Work) -> Answer<()> {
        if work.loaded {
            work.application.stop(self.plan.limits.query).await.map_err(internal)?;
            work.loaded = false;
        }
        Ok(())
    }

    fn accepts(&self, request: &ApplyRequest) -> Answer<()> {
        if request.reason == Reason::Merge {
            let message = "the adapter does not look into a state, so it cannot merge two: one of them has to be chosen";
            return Err(ErrorBody::new(ErrorCode::CannotAccept, message));
        }
        let Plan { vsn: own, accepts_from: others, .. } = &self.plan;
        let vsn = &request.vsn;
        if vsn == own || others.iter().any(|known| known == vsn) {
            return Ok(());
        }
        let message = format!(
            "the state is of version `{vsn}`, this application is `{own}` and accepts [{}]: add it to --accepts-from",
            others.join(", ")
        );
        Err(ErrorBody::new(ErrorCode::CannotAccept, &message))
    }
}
