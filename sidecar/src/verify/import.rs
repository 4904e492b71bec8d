//! A state on its way in.

use bytes::Bytes;
use processhub_protocol::contract::{
    ActivateRequest, ApplyRequest, Direction, ErrorCode, Info, Name, PATH_ACTIVATE, PartName, PartSize,
    ProcessInfo, Reason, WorkerState, path_apply, path_import, path_import_part,
};
use processhub_protocol::id::Epoch;
use serde_json::Value;

use super::arguments::Arguments;
use super::call::{Answer, Caller, Silence};
use super::capture::Captured;
use super::epochs::activate;
use super::process::Process;
use super::report::{Notes, Rule};

/// Largest slice that is sent: small, so that even a small state comes in several.
const SLICE: usize = 4 << 20;

fn name(text: &str) -> Option<Name> {
    text.parse().ok()
}

fn apply_request(captured: &Captured) -> ApplyRequest {
    let size = |(name, bytes): &(PartName, Bytes)| PartSize { name: name.clone(), bytes: bytes.len() as u64 };
    ApplyRequest {
        epoch: Epoch(9),
        reason: Reason::Handover,
        vsn: captured.vsn.clone(),
        direction: Direction::Up,
        extra: Value::Null,
        seq: captured.seq,
        since: None,
        parts: captured.parts.iter().map(size).collect(),
        dry_run: false,
    }
}

/// Uploads a part in slices, as a sidecar does; the first refusal.
pub(super) async fn upload(
    caller: &Caller,
    import: &Name,
    part: &PartName,
    bytes: &Bytes,
) -> Result<Result<(), String>, Silence> {
    let slice = bytes.len().div_ceil(3).clamp(1, SLICE);
    for offset in (0..bytes.len()).step_by(slice) {
        let piece = bytes.slice(offset..bytes.len().min(offset + slice));
        let answer = caller.put(&path_import_part(import, part, offset as u64), piece).await?;
        if let Err(seen) = answer.done() {
            return Ok(Err(seen));
        }
    }
    Ok(Ok(()))
}

/// The way in that ends well.
pub(super) async fn check(
    process: &Process,
    captured: &Captured,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let caller = &process.caller;
    let Some(import) = name("verify-1") else { return Ok(()) };
    let mut uploaded = Ok(());
    for (part, bytes) in &captured.parts {
        uploaded = uploaded.and(upload(caller, &import, part, bytes).await?);
    }
    let mend =
        "take slices of at most 8 MiB in order, each 204; a part is complete when apply says its length";
    notes.that(Rule::Parts, "slices of a state are taken in Standby", uploaded, mend);
    let request = apply_request(captured);
    let trial = ApplyRequest { dry_run: true, ..request.clone() };
    let outcome = caller.command(&path_apply(&import), &trial).await?.done();
    notes.that(
        Rule::Parts,
        "a trial of its own state is 204",
        outcome,
        "decode the state, answer, and change nothing",
    );
    let unchanged = activate(caller, 9, false).await?.refused(ErrorCode::InitialMismatch);
    let mend = "after `dryRun` the worker has no state yet: answer activate without `initial` as if nothing had come";
    notes.that(Rule::Parts, "a trial changes nothing", unchanged, mend);
    for (rule, what) in
        [(Rule::Parts, "apply of its own state is 204"), (Rule::Idempotence, "apply again is 204")]
    {
        let outcome = caller.command(&path_apply(&import), &request).await?.done();
        notes.that(
            rule,
            what,
            outcome,
            "replace the whole state at once and answer 204, also when it comes again",
        );
    }
    for what in ["a deleted import is 204", "and deleted again is 204"] {
        let outcome = caller.ask("DELETE", &path_import(&import)).await?.done();
        notes.that(Rule::Idempotence, what, outcome, "forget what was uploaded; what was applied stays");
    }
    let done = activate(caller, 9, false).await?.done();
    notes.that(
        Rule::States,
        "a worker with a state is activated without `initial`",
        done,
        "serve with that state",
    );
    let mend = "only a worker in Standby takes a state: answer 409 {\"code\": \"WrongState\"}";
    if let Some((part, _)) = captured.parts.first() {
        let late = caller.put(&path_import_part(&import, part, 0), Bytes::from_static(b"x")).await?;
        notes.that(
            Rule::States,
            "slices are refused while it serves",
            late.refused(ErrorCode::WrongState),
            mend,
        );
    }
    arrived(caller, captured, arguments, notes).await
}

async fn arrived(
    caller: &Caller,
    captured: &Captured,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let what = "a client reads the same after the move as before";
    let (Some(call), Some(before)) = (&arguments.read, &captured.read) else {
        notes.skip(Rule::Freeze, what, "give --read");
        return Ok(());
    };
    let after = caller.client(&call.method, &call.path, &call.body).await?;
    let same = (after.body == *before).then_some(()).ok_or_else(|| {
        let start: String = String::from_utf8_lossy(before).chars().take(120).collect();
        after.but(&format!("`{}`", start.escape_debug()))
    });
    notes.that(Rule::Freeze, what, same, "put everything that clients can see into the capture");
    Ok(())
}

/// The ways in that must not end well.
pub(super) async fn check_refusals(
    process: &Process,
    captured: &Captured,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let caller = &process.caller;
    let Some(import) = name("verify-2") else { return Ok(()) };
    let request = apply_request(captured);
    if let Some((part, _)) = captured.parts.iter().find(|(_, bytes)| !bytes.is_empty()) {
        offsets(caller, &import, part, notes).await?;
        caller.ask("DELETE", &path_import(&import)).await?;
        let short = caller.command(&path_apply(&import), &request).await?;
        let mend =
            "compare each part's length with `parts` of apply and answer 409 {\"code\": \"Incomplete\"}";
        let what = "a state that is not all there is not applied";
        notes.that(Rule::Parts, what, short.refused(ErrorCode::Incomplete), mend);
    }
    let since = request.seq.saturating_add(1);
    let delta = ApplyRequest { since: Some(since), seq: since, ..request.clone() };
    let answer = caller.command(&path_apply(&import), &delta).await?;
    let mend = "answer 409 {\"code\": \"WrongBase\"} to a delta on a `seq` that the worker does not hold";
    notes.that(Rule::Parts, "a delta on nothing is refused", answer.refused(ErrorCode::WrongBase), mend);
    nonsense(caller, captured, &request, notes).await?;
    let state = caller.info().await?.json::<Info>().map(|info| info.state);
    let still = state.and_then(|state| match state {
        WorkerState::Standby => Ok(()),
        other => Err(format!("it is {}", other.as_str())),
    });
    notes.that(
        Rule::States,
        "refused states leave the worker in Standby",
        still,
        "change nothing unless apply is 204",
    );
    for (part, bytes) in &captured.parts {
        // What is wrong with it was told by the other checks.
        let _ = upload(caller, &import, part, bytes).await?;
    }
    let outcome = caller.command(&path_apply(&import), &request).await?.done();
    let mend = "a refused import must not stand in the way of the next: offset 0 starts a part over";
    notes.that(Rule::Parts, "and a good one is applied afterwards", outcome, mend);
    let crashed = ActivateRequest {
        epoch: request.epoch,
        reason: Reason::Crash,
        initial: false,
        process: ProcessInfo::default(),
        may_miss: Some(request.seq.saturating_add(1)),
    };
    let outcome = caller.command(PATH_ACTIVATE, &crashed).await?.done();
    let mend = "go on with the state that was applied; `mayMiss` only tells which numbers may be missing";
    notes.that(
        Rule::Restart,
        "a worker that comes back after a crash is activated with mayMiss",
        outcome,
        mend,
    );
    Ok(())
}

async fn offsets(caller: &Caller, import: &Name, part: &PartName, notes: &mut Notes) -> Result<(), Silence> {
    let put = async |offset, bytes: &'static str| -> Result<Answer, Silence> {
        caller.put(&path_import_part(import, part, offset), Bytes::from(bytes)).await
    };
    put(0, "first").await?;
    let gap = put(100, "x").await?.refused(ErrorCode::WrongOffset);
    let told = gap.and_then(|body| match body.have {
        Some(5) => Ok(()),
        other => Err(format!("5 bytes were sent, `have` is {other:?}")),
    });
    let mend = "answer 409 {\"code\": \"WrongOffset\", \"have\"} with the number of bytes of the part that are stored";
    notes.that(Rule::Parts, "a slice with a gap before it is told where to go on", told, mend);
    let over = put(0, "f").await?.done();
    let next = put(5, "x").await?.refused(ErrorCode::WrongOffset);
    let told = over.and(next.and_then(|body| match body.have {
        Some(1) => Ok(()),
        other => Err(format!("after a new start with 1 byte `have` is {other:?}")),
    }));
    notes.that(
        Rule::Parts,
        "offset 0 starts a part over",
        told,
        "drop what was stored of the part and begin again",
    );
    Ok(())
}

async fn nonsense(
    caller: &Caller,
    captured: &Captured,
    request: &ApplyRequest,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let what = "a state that cannot be read is refused with 422";
    let Some(import) = name("verify-3") else { return Ok(()) };
    if captured.parts.iter().all(|(_, bytes)| bytes.is_empty()) {
        notes.skip(Rule::Errors, what, "the captured state has no bytes: give --change");
        return Ok(());
    }
    for (part, bytes) in &captured.parts {
        let _ = upload(caller, &import, part, &Bytes::from(vec![0xFF; bytes.len()])).await?;
    }
    let answer = caller.command(&path_apply(&import), request).await?;
    let refused = if answer.status == 422 { Ok(()) } else { Err(answer.but("422")) };
    let mend = "check what comes in before replacing the state, and answer 422 with a message that names what is wrong";
    notes.that(Rule::Errors, what, refused, mend);
    Ok(())
}
