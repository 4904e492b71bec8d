//! The calls that a worker need not have: consent, and a change of code while it runs.

use processhub_protocol::contract::error::is_not_offered;
use processhub_protocol::contract::{
    CodeChangeRequest, ConsentAnswer, ConsentRequest, Direction, ErrorCode, Info, PATH_CODE_CHANGE,
    PATH_CONSENT, Reason, WorkerState,
};
use processhub_protocol::id::Epoch;
use serde_json::Value;

use super::arguments::Arguments;
use super::call::{Answer, Caller, Silence};
use super::epochs::{activate, resume, suspend};
use super::process::Process;
use super::report::{Notes, Rule};

/// A version that no worker has.
const NOWHERE: &str = "processhub-verify-no-such-version";

pub(super) async fn check(
    process: &Process,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let caller = &process.caller;
    activate(caller, 1, true).await?;
    let Ok(info) = caller.info().await?.json::<Info>() else { return Ok(()) };
    consent(caller, &info, notes).await?;
    code_change(caller, &info, arguments, notes).await
}

async fn consent(caller: &Caller, info: &Info, notes: &mut Notes) -> Result<(), Silence> {
    let what = "consent is answered Ready or Defer";
    if !info.consent {
        notes.skip(Rule::Consent, what, "this worker says `consent: false`");
        return Ok(());
    }
    let ask =
        ConsentRequest { reason: Reason::Handover, forced_at_time: Some("2000-01-01T00:00:00Z".to_owned()) };
    let answer = caller.command(PATH_CONSENT, &ask).await?;
    let known = answer.json::<ConsentAnswer>().and_then(|_| {
        // Everything but a clear yes means Defer; an author who wrote something else means something else.
        let text = String::from_utf8_lossy(&answer.body);
        if text.contains("\"Ready\"") || text.contains("\"Defer\"") {
            Ok(())
        } else {
            Err(answer.but("{\"answer\": \"Ready\" or \"Defer\"}"))
        }
    });
    let mend = "answer POST /v1/consent with 200 {\"answer\": \"Ready\"} or {\"answer\": \"Defer\"}, or say `consent: false` in info";
    notes.that(Rule::Consent, what, known, mend);
    let still = caller.info().await?.json::<Info>().and_then(|now| {
        let same = (now.state, now.epoch) == (info.state, info.epoch);
        if same { Ok(()) } else { Err(format!("the worker is now {}", now.state.as_str())) }
    });
    let mend = "only answer: a worker that says Ready goes on until it is suspended";
    notes.that(Rule::Consent, "being asked for consent changes nothing", still, mend);
    Ok(())
}

async fn code_change(
    caller: &Caller,
    info: &Info,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let ask = async |epoch: u64, to: &str| -> Result<Answer, Silence> {
        let body = CodeChangeRequest {
            epoch: Epoch(epoch),
            from: info.vsn.clone(),
            to: to.to_owned(),
            direction: Direction::Up,
            extra: Value::Null,
        };
        caller.command(PATH_CODE_CHANGE, &body).await
    };
    let early = ask(1, NOWHERE).await?;
    suspend(caller, 2).await?;
    let unknown = ask(2, NOWHERE).await?;
    let what = "a change to code that is not there is refused with 422";
    if is_not_offered(unknown.status) {
        notes.skip(Rule::CodeChange, what, "this worker has no POST /v1/code-change");
        return Ok(());
    }
    let mend = "answer 409 {\"code\": \"WrongState\"} unless suspended: requests that run would meet other code half-way";
    let refused = early.refused(ErrorCode::WrongState);
    notes.that(Rule::CodeChange, "a code change is refused while the worker serves", refused, mend);
    let refused = if unknown.status == 422 { Ok(()) } else { Err(unknown.but("422")) };
    let mend = "load the code before anything else, and answer 422 with a message that says why it cannot be";
    notes.that(Rule::CodeChange, what, refused, mend);
    let vsn = async || -> Result<Result<String, String>, Silence> {
        Ok(caller.info().await?.json::<Info>().map(|info| info.vsn))
    };
    let same = vsn().await?.and_then(|vsn| {
        if vsn == info.vsn { Ok(()) } else { Err(format!("it was `{}`, it is `{vsn}`", info.vsn)) }
    });
    let mend = "a refused change leaves code and state as they were";
    notes.that(Rule::CodeChange, "after a refused change it is the same version", same, mend);
    let what = "after a code change the worker is the other version";
    let Some(to) = &arguments.code_change else {
        notes.skip(Rule::CodeChange, what, "give --code-change VERSION");
        return served(caller, notes).await;
    };
    let done = ask(2, to).await?.done();
    let now = vsn().await?;
    let changed = done
        .and(now)
        .and_then(|vsn| if vsn == *to { Ok(()) } else { Err(format!("GET /v1/info still says `{vsn}`")) });
    let mend =
        "answer 204 once the other code runs, with the state converted, and say its version in GET /v1/info";
    notes.that(Rule::CodeChange, what, changed, mend);
    let again = ask(2, to).await?.done();
    let mend = "answer a code change that comes again, with the same epoch, as the first time";
    notes.that(Rule::Idempotence, "a code change again is 204", again, mend);
    served(caller, notes).await
}

async fn served(caller: &Caller, notes: &mut Notes) -> Result<(), Silence> {
    let resumed = resume(caller, 3).await?.done();
    let state = caller.info().await?.json::<Info>().map(|info| info.state);
    let serves = resumed.and(state).and_then(|state| {
        if state == WorkerState::Active { Ok(()) } else { Err(format!("it is {}", state.as_str())) }
    });
    let mend = "resume as after any suspend, whether the change was made or refused: nothing stays suspended";
    notes.that(Rule::CodeChange, "after a code change the worker serves again", serves, mend);
    Ok(())
}
