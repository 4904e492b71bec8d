//! Activate, suspend and resume: epochs, repeats, and what clients see.

use std::time::Duration;

use processhub_protocol::contract::{
    ActivateRequest, ErrorCode, Info, PATH_ACTIVATE, PATH_RESUME, PATH_SUSPEND, ProcessInfo, Reason,
    ResumeRequest, SuspendRequest, WorkerState,
};
use processhub_protocol::id::Epoch;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::arguments::Arguments;
use super::call::{Answer, Caller, Silence};
use super::process::Process;
use super::report::{Notes, Rule};
use super::standby::clients_wait;

/// How often, and how far apart, a worker is looked at after its caller went away.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(30);
const STALE: &str = "keep the highest epoch seen, and answer 409 {\"code\": \"StaleEpoch\", \"state\", \"epoch\"} to every \
                     command with a lower one";
const AGAIN: &str = "answer a command that is already in effect as the first time, without doing it again";

pub(super) async fn activate(caller: &Caller, epoch: u64, initial: bool) -> Result<Answer, Silence> {
    let body = ActivateRequest {
        epoch: Epoch(epoch),
        reason: if initial { Reason::Start } else { Reason::Handover },
        initial,
        process: ProcessInfo::default(),
        may_miss: None,
    };
    caller.command(PATH_ACTIVATE, &body).await
}

pub(super) async fn suspend(caller: &Caller, epoch: u64) -> Result<Answer, Silence> {
    caller.command(PATH_SUSPEND, &SuspendRequest { epoch: Epoch(epoch), reason: Reason::Handover }).await
}

pub(super) async fn resume(caller: &Caller, epoch: u64) -> Result<Answer, Silence> {
    caller.command(PATH_RESUME, &ResumeRequest { epoch: Epoch(epoch) }).await
}

/// One worker through activate, suspend and resume.
pub(super) async fn check(
    process: &Process,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let caller = &process.caller;
    activation(caller, notes).await?;
    stale_while_active(caller, notes).await?;
    let done = suspend(caller, 6).await?.done();
    if notes
        .that(Rule::States, "suspend is 204", done, "answer 204 once the state can no longer change")
        .is_none()
    {
        return Ok(());
    }
    now_is(caller, WorkerState::Suspended, 6, "a suspended worker says so, with the epoch", notes).await?;
    let again = suspend(caller, 6).await?.done();
    notes.that(Rule::Idempotence, "suspend again is 204", again, AGAIN);
    let what = "while suspended clients get 503 with ProcessHub-State";
    clients_wait(caller, WorkerState::Suspended, what, notes).await?;
    let stale = resume(caller, 5).await?.refused(ErrorCode::StaleEpoch);
    notes.that(Rule::Epoch, "resume with a lower epoch is refused", stale, STALE);
    let done = resume(caller, 7).await?.done();
    notes.that(Rule::States, "resume is 204", done, "serve again and answer 204");
    let again = resume(caller, 7).await?.done();
    notes.that(Rule::Idempotence, "resume again is 204", again, AGAIN);
    let late = suspend(caller, 6).await?.refused(ErrorCode::StaleEpoch);
    let what = "a suspend that comes after the resume that called it off is refused";
    notes.that(Rule::Epoch, what, late, STALE);
    now_is(caller, WorkerState::Active, 7, "and the worker serves on", notes).await?;
    let newer = caller.post(PATH_RESUME, "{\"epoch\": 7, \"fromTheFuture\": {\"a\": [1]}}").await?.done();
    let mend = "read the fields that you know and leave the others alone: a newer sidecar may send more";
    notes.that(Rule::Errors, "a field that is not known is ignored", newer, mend);
    served(caller, arguments, notes).await?;
    gone(caller, notes).await
}

/// Rule 10: the sidecar may die in the middle of a call, and comes back.
async fn gone(caller: &Caller, notes: &mut Notes) -> Result<(), Silence> {
    let before = caller.info().await?.json::<Info>();
    for body in ["", "{\"epoch\": 9, "] {
        let head = format!(
            "POST {PATH_SUSPEND} HTTP/1.1\r\nHost: worker\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
        );
        if let Ok(mut stream) = TcpStream::connect(caller.control).await {
            // It is the end of the connection that matters, not how much of the call arrived.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.flush().await;
        }
    }
    let mut outcome = Ok(());
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = match caller.info().await {
            Ok(answer) => answer.json::<Info>(),
            Err(silence) => Err(format!("afterwards {silence}")),
        };
        let same = now.and_then(|now| match &before {
            Ok(before)
                if (&now.instance, now.state, now.epoch)
                    != (&before.instance, before.state, before.epoch) =>
            {
                Err(format!("it is now {} at epoch {}", now.state.as_str(), now.epoch))
            }
            _ => Ok(()),
        });
        outcome = outcome.and(same);
    }
    let mend = "treat a connection that breaks off as a request that never came, and serve the next one";
    notes.that(
        Rule::Caller,
        "a caller that goes away in the middle of a call changes nothing",
        outcome,
        mend,
    );
    Ok(())
}

async fn activation(caller: &Caller, notes: &mut Notes) -> Result<(), Silence> {
    let nothing = activate(caller, 4, false).await?.refused(ErrorCode::InitialMismatch);
    notes.that(
        Rule::States,
        "activate without `initial` is refused where no state was applied",
        nothing.map(|_| ()),
        "answer 409 {\"code\": \"InitialMismatch\"}: an empty state must never pass for the process's",
    );
    let done = activate(caller, 5, true).await?.done();
    notes.that(Rule::States, "activate is 204", done, "begin with an initial state and answer 204");
    now_is(caller, WorkerState::Active, 5, "an active worker says so, with the epoch", notes).await?;
    let again = activate(caller, 5, true).await?.done();
    notes.that(Rule::Idempotence, "activate again is 204", again, AGAIN);
    Ok(())
}

async fn stale_while_active(caller: &Caller, notes: &mut Notes) -> Result<(), Silence> {
    let refusal = suspend(caller, 4).await?.refused(ErrorCode::StaleEpoch);
    if let Some(body) = notes.that(Rule::Epoch, "suspend with a lower epoch is refused", refusal, STALE) {
        let told = (body.state, body.epoch);
        let full = told == (Some(WorkerState::Active), Some(Epoch(5)));
        notes.that(
            Rule::Epoch,
            "the refusal says where the worker stands",
            full.then_some(()).ok_or_else(|| format!("state and epoch are {told:?}, expected Active and 5")),
            "put the worker's `state` and its highest `epoch` into the refusal",
        );
    }
    let refusal = activate(caller, 4, true).await?.refused(ErrorCode::StaleEpoch);
    notes.that(Rule::Epoch, "activate with a lower epoch is refused", refusal, STALE);
    now_is(caller, WorkerState::Active, 5, "a refused command changes nothing", notes).await
}

async fn now_is(
    caller: &Caller,
    state: WorkerState,
    epoch: u64,
    what: &'static str,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let info = caller.info().await?.json::<Info>().and_then(|info| {
        let (now, seen) = (info.state.as_str(), info.epoch);
        let right = info.state == state && seen == Epoch(epoch);
        right.then_some(()).ok_or_else(|| {
            format!("GET /v1/info says {now} at epoch {seen}, expected {} at epoch {epoch}", state.as_str())
        })
    });
    notes.that(
        Rule::States,
        what,
        info,
        "say in GET /v1/info what the worker does and the highest epoch it has seen",
    );
    Ok(())
}

async fn served(caller: &Caller, arguments: &Arguments, notes: &mut Notes) -> Result<(), Silence> {
    let what = "clients are served while the worker is Active";
    let Some(call) = arguments.read.as_ref().or(arguments.change.as_ref()) else {
        notes.skip(Rule::States, what, "give --change or --read");
        return Ok(());
    };
    let answer = caller.client(&call.method, &call.path, &call.body).await?;
    let right = if (200..300).contains(&answer.status) { Ok(()) } else { Err(answer.but("a success")) };
    notes.that(
        Rule::States,
        what,
        right,
        "serve clients on PROCESSHUB_LISTEN once activated and after a resume",
    );
    Ok(())
}
