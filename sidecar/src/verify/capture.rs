//! A state on its way out.

use bytes::Bytes;
use processhub_protocol::contract::{
    CaptureAnswer, CaptureMode, CapturePurpose, CaptureRequest, CaptureSummary, Disposition, ErrorCode, Info,
    PATH_CAPTURE, PartName, path_capture, path_capture_part,
};
use processhub_protocol::id::{Epoch, Seq};

use super::arguments::{Arguments, ClientCall};
use super::call::{Answer, Caller, Silence};
use super::epochs::{activate, resume, suspend};
use super::process::Process;
use super::report::{Notes, Rule};

/// How many changes run against the freeze.
const WRITERS: usize = 4;

/// A captured state, with what a client read of it.
pub(super) struct Captured {
    pub(super) seq: Seq,
    pub(super) vsn: String,
    pub(super) parts: Vec<(PartName, Bytes)>,
    /// What `--read` answers on this state.
    pub(super) read: Option<Bytes>,
}

/// Captures a worker under changes; `None` for a worker without a state.
pub(super) async fn check(
    process: &Process,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<Option<Captured>, Silence> {
    let caller = &process.caller;
    // Their own checks tell what is wrong with these.
    activate(caller, 1, true).await?;
    let live = caller.info().await?.json::<Info>().is_ok_and(|info| info.capture == CaptureMode::Live);
    if !live {
        let answer = capture(caller, 1).await?;
        let right = match Disposition::of(answer.status, true) {
            Disposition::NoState => Ok(()),
            _ => answer.refused(ErrorCode::WrongState).map(|_| ()),
        };
        let mend = "answer 409 {\"code\": \"WrongState\"}, or declare `capture: Live` in GET /v1/info";
        notes.that(
            Rule::Parts,
            "a worker that is captured suspended refuses it while it serves",
            right,
            mend,
        );
    }
    freeze(caller, arguments.change.as_ref(), notes).await?;
    let answer = capture(caller, 2).await?;
    if Disposition::of(answer.status, true) == Disposition::NoState {
        notes.skip(
            Rule::Parts,
            "the state can be captured",
            "this worker has none (404, 405, 501): it moves without",
        );
        return Ok(None);
    }
    let Some(captured) = parts(caller, &answer, notes).await? else { return Ok(None) };
    let done = resume(caller, 3).await?.done();
    notes.that(Rule::States, "resume after a capture is 204", done, "serve again: the move was called off");
    let read = match &arguments.read {
        Some(call) => Some(caller.client(&call.method, &call.path, &call.body).await?.body),
        None => None,
    };
    suspend(caller, 4).await?;
    Ok(Some(Captured { read, ..captured }))
}

pub(super) async fn capture(caller: &Caller, epoch: u64) -> Result<Answer, Silence> {
    let body = CaptureRequest {
        epoch: Epoch(epoch),
        purpose: CapturePurpose::Handover,
        since: None,
        unless_seq: None,
    };
    caller.command(PATH_CAPTURE, &body).await
}

/// Suspends while clients change the state: after the answer not one of them may succeed.
async fn freeze(caller: &Caller, change: Option<&ClientCall>, notes: &mut Notes) -> Result<(), Silence> {
    let what = "after suspend's 204 no request of a client succeeds";
    let Some(change) = change else {
        suspend(caller, 2).await?;
        notes.skip(Rule::Freeze, what, "give --change");
        return Ok(());
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (caller, change) = (caller.clone(), change.clone());
            tokio::spawn(async move {
                while caller.client(&change.method, &change.path, &change.body).await.is_ok_and(succeeded) {}
            })
        })
        .collect();
    let answer = suspend(caller, 2).await?;
    let late = caller.client(&change.method, &change.path, &change.body).await?;
    for writer in writers {
        // It ends at its first refusal; a worker that never refuses is stopped here.
        if tokio::time::timeout(caller.patience, writer).await.is_err() {
            break;
        }
    }
    let outcome =
        answer.done().and_then(|()| if succeeded(late.clone()) { Err(late.but("503")) } else { Ok(()) });
    let mend = "stop taking requests, wait for those that run, and only then answer suspend";
    notes.that(Rule::Freeze, what, outcome, mend);
    Ok(())
}

fn succeeded(answer: Answer) -> bool {
    (200..300).contains(&answer.status)
}

/// Reads everything, twice, and compares the counts.
async fn parts(caller: &Caller, answer: &Answer, notes: &mut Notes) -> Result<Option<Captured>, Silence> {
    let first: Result<CaptureAnswer, String> = answer
        .json()
        .and_then(|body: CaptureAnswer| body.check().map(|()| body).map_err(|wrong| wrong.to_string()));
    let mend = "answer {\"capture\", \"seq\", \"vsn\", \"parts\": [{\"name\", \"bytes\"}]}, each name once, [a-z0-9._-]{1,63}";
    let Some(first) = notes.that(Rule::Parts, "capture names its parts", first, mend) else {
        return Ok(None);
    };
    let again = capture(caller, 2).await?.json::<CaptureAnswer>();
    let mend = "answer a repeated capture with one of the same state: nothing can have changed it";
    let same = again.and_then(|again| {
        let names =
            |answer: &CaptureAnswer| answer.parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
        let same = again.seq == first.seq && names(&again) == names(&first);
        same.then_some(again).ok_or_else(|| "another `seq` or other parts came back".to_owned())
    });
    // A worker may name the repeat anew, and then hold only that.
    let first = notes.that(Rule::Idempotence, "capture again is the same state", same, mend).unwrap_or(first);
    let mut parts = Vec::new();
    let mut outcome = Ok(());
    for part in &first.parts {
        let path = path_capture_part(&first.capture, &part.name);
        let (once, twice) = (caller.read(&path).await?, caller.read(&path).await?);
        let length = once.body.len() as u64;
        if once.status != 200 {
            outcome = Err(once.but("200 with the part's bytes"));
        } else if once.body != twice.body {
            outcome = Err(format!("part `{}` reads differently the second time", part.name));
        } else if part.bytes.is_some_and(|bytes| bytes != length) {
            outcome = Err(format!("part `{}` has {length} bytes, capture said {:?}", part.name, part.bytes));
        }
        parts.push((part.name.clone(), once.body));
    }
    let mend = "keep a capture unchanged and readable, any number of times, until it is deleted or the worker resumes";
    notes.that(Rule::Parts, "each part reads the same twice and is as long as was said", outcome, mend);
    summary(caller, &first, &parts, notes).await?;
    Ok(Some(Captured { seq: first.seq, vsn: first.vsn, parts, read: None }))
}

async fn summary(
    caller: &Caller,
    capture: &CaptureAnswer,
    parts: &[(PartName, Bytes)],
    notes: &mut Notes,
) -> Result<(), Silence> {
    let path = path_capture(&capture.capture);
    let deleted = caller.ask("DELETE", &path).await?;
    let outcome = deleted.json::<CaptureSummary>().and_then(|summary| {
        summary.check().map_err(|wrong| wrong.to_string())?;
        let told =
            |name: &PartName| summary.parts.iter().find(|part| &part.name == name).map(|part| part.bytes);
        match parts.iter().find(|(name, bytes)| told(name) != Some(bytes.len() as u64)) {
            Some((name, bytes)) => {
                Err(format!("part `{name}` had {} bytes, DELETE says {:?}", bytes.len(), told(name)))
            }
            None => Ok(()),
        }
    });
    let mend = "answer DELETE with {\"parts\": [{\"name\", \"bytes\"}]} and the bytes given out: it shows an export cut short";
    notes.that(Rule::Parts, "the deleted capture counts its bytes", outcome, mend);
    Ok(())
}
