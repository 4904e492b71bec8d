//! What a worker can do while it serves: numbers on its answers, captures, deltas.

use bytes::Bytes;
use processhub_protocol::contract::{
    CaptureAnswer, CaptureMode, CapturePurpose, CaptureRequest, ErrorCode, HEADER_SEQ, Info, PATH_CAPTURE,
    PartName, path_capture_part,
};
use processhub_protocol::id::{Epoch, Seq};

use super::arguments::{Arguments, ClientCall};
use super::call::{Answer, Caller, Silence};
use super::epochs::{activate, suspend};
use super::process::Process;
use super::report::{Notes, Rule};

const CAPTURE: &str = "answer {\"capture\", \"seq\", \"vsn\", \"parts\": [{\"name\", \"bytes\"}]} while clients are served, or say \
                       `capture: \"Suspended\"` in GET /v1/info";

/// A whole state and the delta that leads from it to what `read` shows.
pub(super) struct Synced {
    pub(super) base: Read,
    pub(super) delta: Read,
    /// What `--read` answers on the state with the delta.
    pub(super) read: Option<Bytes>,
}

/// A capture with its bytes.
pub(super) struct Read {
    pub(super) answer: CaptureAnswer,
    pub(super) parts: Vec<(PartName, Bytes)>,
}

fn ask(epoch: u64, purpose: CapturePurpose, since: Option<Seq>, unless_seq: Option<Seq>) -> CaptureRequest {
    CaptureRequest { epoch: Epoch(epoch), purpose, since, unless_seq }
}

async fn read(caller: &Caller, answer: CaptureAnswer) -> Result<Read, Silence> {
    let mut parts = Vec::new();
    for part in &answer.parts {
        let bytes = caller.read(&path_capture_part(&answer.capture, &part.name)).await?.body;
        parts.push((part.name.clone(), bytes));
    }
    Ok(Read { answer, parts })
}

fn captured(answer: &Answer, request: &CaptureRequest) -> Result<CaptureAnswer, String> {
    let body: CaptureAnswer = answer.json()?;
    body.check_for(request).map(|()| body).map_err(|wrong| wrong.to_string())
}

async fn change(caller: &Caller, call: &ClientCall) -> Result<Answer, Silence> {
    caller.client(&call.method, &call.path, &call.body).await
}

/// Rule 6: the numbers of answers, on a worker that was just activated.
pub(super) async fn check_numbers(
    process: &Process,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let caller = &process.caller;
    activate(caller, 1, true).await?;
    let what = "ProcessHub-Seq is the number of a state";
    let Some(call) = &arguments.change else {
        notes.skip(Rule::Sync, what, "give --change");
        return Ok(());
    };
    let first = change(caller, call).await?;
    let Some(first) = first.headers.get(HEADER_SEQ) else {
        notes.skip(
            Rule::Sync,
            what,
            "this worker does not number its answers: class Sync costs a capture for each",
        );
        return Ok(());
    };
    let first = number(first);
    let mend = "set ProcessHub-Seq to a decimal number: a state with at least that number contains what the answer tells of";
    let Some(first) = notes.that(Rule::Sync, what, first, mend) else { return Ok(()) };
    let second = change(caller, call).await?;
    let second = second.headers.get(HEADER_SEQ).map_or_else(|| Err("the second has none".to_owned()), number);
    let higher = second.and_then(|second| {
        let told = format!("the first change is {first}, the second {second}");
        if second > first { Ok(second) } else { Err(told) }
    });
    let mend = "count each change before it is answered: an answer with an old number is released before its change is kept";
    let last = notes.that(Rule::Sync, "each change has a higher number than the one before", higher, mend);
    let Some(last) = last else { return Ok(()) };
    let info = caller.info().await?.json::<Info>();
    let (info_seq, live) =
        info.map(|info| (info.seq, info.capture == CaptureMode::Live)).unwrap_or((0, false));
    let mend = "`seq` of GET /v1/info is the number of the present state: at least that of every answer";
    let told = format!("an answer said {last}, info says {info_seq}");
    let known = if info_seq >= last { Ok(()) } else { Err(told) };
    notes.that(Rule::Sync, "info has at least the number of every answer", known, mend);
    if let Some(call) = &arguments.read
        && let Some(header) = change(caller, call).await?.headers.get(HEADER_SEQ)
    {
        let told = number(header).and_then(|read| {
            if read >= last { Ok(()) } else { Err(format!("a change was {last}, a read after it {read}")) }
        });
        let mend = "number reads too, with the present state's number: what they show must be kept before it is told";
        notes.that(Rule::Sync, "a read has the number of what it shows", told, mend);
    }
    if !live {
        suspend(caller, 2).await?;
    }
    let request = ask(if live { 1 } else { 2 }, CapturePurpose::Checkpoint, None, None);
    let state = captured(&caller.command(PATH_CAPTURE, &request).await?, &request);
    let contains = state.and_then(|state| {
        let told = format!("an answer said {last}, a capture after it {}", state.seq);
        if state.seq >= last { Ok(()) } else { Err(told) }
    });
    let mend = "take the number and the state of a capture in one step: whatever was answered before has at most that number";
    notes.that(Rule::Sync, "a capture has at least the number of every answer before it", contains, mend);
    Ok(())
}

fn number(header: &http::HeaderValue) -> Result<Seq, String> {
    let text = String::from_utf8_lossy(header.as_bytes());
    text.parse().map_err(|_| format!("ProcessHub-Seq is `{}`", text.escape_debug()))
}

/// Rule 4: captures of a worker that serves. Only if it says that it can be.
pub(super) async fn check(
    process: &Process,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<Option<Synced>, Silence> {
    let caller = &process.caller;
    activate(caller, 1, true).await?;
    let what = "a worker that says Live is captured while it serves";
    if !caller.info().await?.json::<Info>().is_ok_and(|info| info.capture == CaptureMode::Live) {
        notes.skip(Rule::PreCopy, what, "this worker says `capture: Suspended`");
        return Ok(None);
    }
    if let Some(call) = &arguments.change {
        change(caller, call).await?;
    }
    let stale = caller.command(PATH_CAPTURE, &ask(0, CapturePurpose::Checkpoint, None, None)).await?;
    let mend =
        "check the epoch of a capture as that of a command: a lower one is of an owner that is none any more";
    let what_stale = "a live capture with a lower epoch is refused";
    notes.that(Rule::Epoch, what_stale, stale.refused(ErrorCode::StaleEpoch), mend);
    let request = ask(1, CapturePurpose::Checkpoint, None, None);
    let first = captured(&caller.command(PATH_CAPTURE, &request).await?, &request);
    let Some(first) = notes.that(Rule::PreCopy, what, first, CAPTURE) else { return Ok(None) };
    let first = read(caller, first).await?;
    let Some(call) = &arguments.change else {
        notes.skip(Rule::PreCopy, "a delta leads from one state to the next", "give --change");
        return Ok(None);
    };
    change(caller, call).await?;
    let again = read(caller, first.answer.clone()).await?;
    let same = if again.parts == first.parts { Ok(()) } else { Err("it reads differently".to_owned()) };
    let mend = "copy what a capture shows, or share it and copy on write: it is one point in time, whatever changes afterwards";
    notes.that(Rule::Parts, "a live capture stays as it was while the state changes", same, mend);
    unless(caller, first.answer.seq, notes).await?;
    let synced = deltas(caller, call, notes).await?;
    let Some((base, delta)) = synced else { return Ok(None) };
    let read = match &arguments.read {
        Some(call) => Some(change(caller, call).await?.body),
        None => None,
    };
    Ok(Some(Synced { base, delta, read }))
}

/// `unlessSeq` on a state that changed, and on one that did not.
async fn unless(caller: &Caller, before: Seq, notes: &mut Notes) -> Result<(), Silence> {
    let request = ask(1, CapturePurpose::Checkpoint, None, Some(before));
    let answer = caller.command(PATH_CAPTURE, &request).await?;
    let now = captured(&answer, &request);
    let told = now.as_ref().map_err(Clone::clone).and_then(|now| {
        let same = format!("the number is still {before}");
        if now.seq != before || before == 0 { Ok(()) } else { Err(same) }
    });
    let mend = "answer 204 to `unlessSeq` only if the state's number is that one, and give each change another number";
    notes.that(Rule::Sync, "a changed state is not called unchanged", told, mend);
    let Ok(now) = now else { return Ok(()) };
    let request = ask(1, CapturePurpose::Checkpoint, None, Some(now.seq));
    let answer = caller.command(PATH_CAPTURE, &request).await?;
    let same = if answer.status == 204 {
        Ok(())
    } else {
        captured(&answer, &request).and_then(|again| {
            let told = format!("it was {}, and is {} though nobody changed it", now.seq, again.seq);
            if again.seq == now.seq { Ok(()) } else { Err(told) }
        })
    };
    let mend = "count changes and nothing else: each new number makes the sidecar keep the whole state again";
    notes.that(Rule::Idempotence, "a state that nobody changed keeps its number", same, mend);
    Ok(())
}

/// A whole state, a change, and what changed.
async fn deltas(
    caller: &Caller,
    call: &ClientCall,
    notes: &mut Notes,
) -> Result<Option<(Read, Read)>, Silence> {
    let request = ask(1, CapturePurpose::Handover, None, None);
    let Ok(base) = captured(&caller.command(PATH_CAPTURE, &request).await?, &request) else {
        return Ok(None);
    };
    let base = read(caller, base).await?;
    change(caller, call).await?;
    let request = ask(1, CapturePurpose::Handover, Some(base.answer.seq), None);
    let delta = captured(&caller.command(PATH_CAPTURE, &request).await?, &request);
    let what = "a delta is on the number that was asked for";
    if delta.as_ref().is_ok_and(|delta| delta.since.is_none()) {
        notes.skip(Rule::PreCopy, what, "this worker answers with whole states");
        return Ok(None);
    }
    let mend = "answer `since` with the number of the request, or send the whole state without `since`";
    let Some(delta) = notes.that(Rule::PreCopy, what, delta, mend) else { return Ok(None) };
    Ok(Some((base, read(caller, delta).await?)))
}
