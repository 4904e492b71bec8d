//! A base and a delta on their way into a worker in Standby.

use bytes::Bytes;
use processhub_protocol::contract::{
    ApplyRequest, Direction, ErrorCode, Info, Name, PartName, PartSize, Reason, path_apply,
};
use processhub_protocol::id::Epoch;
use serde_json::Value;

use super::arguments::Arguments;
use super::call::{Caller, Silence};
use super::epochs::activate;
use super::import::upload;
use super::live::{Read, Synced};
use super::process::Process;
use super::report::{Notes, Rule};

/// Where the worker is activated.
const EPOCH: u64 = 9;

fn request(read: &Read) -> ApplyRequest {
    let size = |(name, bytes): &(PartName, Bytes)| PartSize { name: name.clone(), bytes: bytes.len() as u64 };
    ApplyRequest {
        epoch: Epoch(EPOCH),
        reason: Reason::Handover,
        vsn: read.answer.vsn.clone(),
        direction: Direction::Up,
        extra: Value::Null,
        seq: read.answer.seq,
        since: read.answer.since,
        parts: read.parts.iter().map(size).collect(),
        dry_run: false,
    }
}

async fn send(caller: &Caller, import: &Name, read: &Read) -> Result<(), Silence> {
    for (part, bytes) in &read.parts {
        // What is wrong with slices is told by the checks of a whole state.
        let _ = upload(caller, import, part, bytes).await?;
    }
    Ok(())
}

/// Rule 4, at the target. Only if it says that it takes deltas of the version that wrote them.
pub(super) async fn check(
    process: &Process,
    synced: &Synced,
    arguments: &Arguments,
    notes: &mut Notes,
) -> Result<(), Silence> {
    let caller = &process.caller;
    let info = caller.info().await?.json::<Info>();
    let takes = info.is_ok_and(|info| info.delta_from.contains(&synced.delta.answer.vsn));
    let what = "a delta on the state that is held is taken";
    if !takes {
        notes.skip(Rule::PreCopy, what, "`deltaFrom` does not name this worker's own version");
        return Ok(());
    }
    let (Ok(base), Ok(delta)) = ("verify-base".parse::<Name>(), "verify-delta".parse::<Name>()) else {
        return Ok(());
    };
    send(caller, &base, &synced.base).await?;
    caller.command(&path_apply(&base), &request(&synced.base)).await?;
    send(caller, &delta, &synced.delta).await?;
    let good = request(&synced.delta);
    let since = good.seq.saturating_add(1000);
    let other = ApplyRequest { since: Some(since), seq: since, ..good.clone() };
    let refused = caller.command(&path_apply(&delta), &other).await?.refused(ErrorCode::WrongBase);
    let mend = "keep the number of the state that was applied, and answer 409 {\"code\": \"WrongBase\"} to a delta on another";
    notes.that(Rule::PreCopy, "a delta on another state is refused", refused, mend);
    let mend =
        "put a delta on the state that was applied before, all of it or nothing, or leave `deltaFrom` empty";
    let taken = caller.command(&path_apply(&delta), &good).await?.done();
    if notes.that(Rule::PreCopy, what, taken, mend).is_none() {
        return Ok(());
    }
    let again = caller.command(&path_apply(&delta), &good).await?.done();
    let mend = "remember the last import and its body: the answer may have been lost, and the delta must not count twice";
    notes.that(Rule::Idempotence, "a delta that comes again is 204", again, mend);
    let seq = caller.info().await?.json::<Info>().map(|info| info.seq);
    let right = seq.and_then(|seq| {
        let told = format!("the delta leads to {}, info says {seq}", good.seq);
        if seq == good.seq { Ok(()) } else { Err(told) }
    });
    let mend = "take over `seq` of the apply: numbers go on where the source stopped";
    notes.that(Rule::PreCopy, "the state has the number that the delta leads to", right, mend);
    activate(caller, EPOCH, false).await?;
    let what = "base and delta make the state that clients saw";
    let (Some(call), Some(before)) = (&arguments.read, &synced.read) else {
        notes.skip(Rule::PreCopy, what, "give --read");
        return Ok(());
    };
    let after = caller.client(&call.method, &call.path, &call.body).await?;
    let start: String = String::from_utf8_lossy(before).chars().take(120).collect();
    let same =
        if after.body == *before { Ok(()) } else { Err(after.but(&format!("`{}`", start.escape_debug()))) };
    let mend = "put everything that changed since the base into the delta, also what is gone";
    notes.that(Rule::PreCopy, what, same, mend);
    Ok(())
}
