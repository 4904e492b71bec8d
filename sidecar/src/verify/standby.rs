//! A worker that has just started.

use processhub_protocol::contract::{
    CapturePurpose, CaptureRequest, ErrorCode, HEADER_STATE, Info, PATH_CAPTURE, PATH_RESUME, PATH_SUSPEND,
    Reason, ResumeRequest, SuspendRequest, WorkerState,
};
use processhub_protocol::id::Epoch;

use super::call::{Answer, Caller, Silence};
use super::process::Process;
use super::report::{Notes, Rule};

const INFO: &str = "answer {\"contract\": 1, \"instance\", \"vsn\", \"state\", \"epoch\", \"seq\", \"capture\"} as \
                    docs/openapi/worker.json describes it";

/// What it says of itself, and that it keeps still; its instance.
pub(super) async fn check(process: &Process, notes: &mut Notes) -> Result<Option<String>, Silence> {
    let caller = &process.caller;
    let answer = caller.info().await?;
    let info =
        answer.json::<Info>().and_then(|info| info.check().map(|()| info).map_err(|wrong| wrong.to_string()));
    let Some(info) = notes.that(Rule::Info, "GET /v1/info is version 1 and within its bounds", info, INFO)
    else {
        return Ok(None);
    };
    let fresh = info.state == WorkerState::Standby && info.epoch == Epoch(0);
    notes.that(
        Rule::States,
        "a worker starts in Standby with epoch 0",
        fresh.then_some(()).ok_or_else(|| format!("it is {} with epoch {}", info.state.as_str(), info.epoch)),
        "begin in Standby after every start; only activate makes a worker Active",
    );
    clients_wait(caller, WorkerState::Standby, "in Standby clients get 503 with ProcessHub-State", notes)
        .await?;
    commands_wait(caller, notes).await?;
    bad_bodies(caller, notes).await?;
    let known = caller.ask("GET", "/v1/no-such-call").await?;
    notes.that(
        Rule::Errors,
        "an unknown call is 404",
        if known.status == 404 { Ok(()) } else { Err(known.but("404")) },
        "answer 404 to paths that the contract does not have, so that a newer sidecar can tell what you speak",
    );
    Ok(Some(info.instance))
}

/// A restart is a new timeline.
pub(super) async fn check_instance(
    process: &Process,
    before: &str,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let info = process.caller.info().await?.json::<Info>();
    let fresh = info.and_then(|info| {
        if info.instance == before { Err(format!("both call themselves `{before}`")) } else { Ok(()) }
    });
    let mend = "draw `instance` at random when the worker starts: the sidecar tells a restart by it";
    notes.that(Rule::Restart, "a restarted worker is another instance", fresh, mend);
    Ok(())
}

/// Whether a client's request is answered as in a state that does not serve.
pub(super) async fn clients_wait(
    caller: &Caller,
    state: WorkerState,
    what: &'static str,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let answer = caller.client("GET", "/processhub-verify", "").await?;
    let told = answer.headers.get(HEADER_STATE).and_then(|value| value.to_str().ok());
    let right = answer.status == 503 && told == Some(state.as_str());
    notes.that(
        Rule::States,
        what,
        right.then_some(()).ok_or_else(|| {
            let told = told.unwrap_or("no such header");
            format!("{}; ProcessHub-State: {told}", answer.but(&format!("503, {}", state.as_str())))
        }),
        "before any handler runs, answer 503 with the header ProcessHub-State unless the worker is Active",
    );
    Ok(())
}

async fn commands_wait(caller: &Caller, notes: &mut Notes) -> Result<(), Silence> {
    let epoch = Epoch(1);
    let capture = CaptureRequest { epoch, purpose: CapturePurpose::Handover, since: None, unless_seq: None };
    let suspend = caller.command(PATH_SUSPEND, &SuspendRequest { epoch, reason: Reason::Handover }).await?;
    let resume = caller.command(PATH_RESUME, &ResumeRequest { epoch }).await?;
    let captured = caller.command(PATH_CAPTURE, &capture).await?;
    let refused = |answer: &Answer| answer.refused(ErrorCode::WrongState).map(|_| ());
    let mend =
        "answer 409 {\"code\": \"WrongState\", \"state\", \"epoch\"} to a call that does not fit the state";
    notes.that(Rule::States, "suspend is refused in Standby", refused(&suspend), mend);
    notes.that(Rule::States, "resume is refused in Standby", refused(&resume), mend);
    // A worker without a state may say so at any time.
    let stateless = matches!(captured.status, 404 | 405 | 501);
    let captured = if stateless { Ok(()) } else { refused(&captured) };
    notes.that(Rule::States, "capture is refused in Standby", captured, mend);
    Ok(())
}

async fn bad_bodies(caller: &Caller, notes: &mut Notes) -> Result<(), Silence> {
    let mut seen = Ok(());
    for body in ["", "not json", "{\"epoch\": \"seven\"}", "{\"epoch\": -1, \"reason\": \"Handover\"}"] {
        let answer = caller.post(PATH_SUSPEND, body).await?;
        if !(400..500).contains(&answer.status) && seen.is_ok() {
            seen = Err(format!("with the body `{body}` {}", answer.but("400")));
        }
    }
    notes.that(
        Rule::Errors,
        "a body that is not the contract's is refused",
        seen,
        "check every body before acting on it and answer 400 {\"code\": \"BadRequest\", \"message\"}",
    );
    Ok(())
}
