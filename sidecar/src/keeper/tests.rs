use std::fs;

use bytes::Bytes;
use processhub_protocol::contract::PartName;

use super::*;

fn name(text: &str) -> PartName {
    text.parse().unwrap()
}

async fn record(keeper: &Keeper, parts: &[(&str, Option<u64>, &[u8])]) -> Result<Manifest, RecordError> {
    let mut recorder = keeper.record();
    for (part, announced, bytes) in parts {
        recorder.part(name(part), *announced).await?;
        for piece in bytes.chunks(700_001) {
            recorder.bytes(Bytes::copy_from_slice(piece)).await?;
        }
    }
    recorder.finish(42, "1.0".into()).await?.synced().await
}

async fn read(kept: &Kept, part: &str) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let chunk = kept.chunk(&name(part), all.len() as u64).await.unwrap();
        if chunk.is_empty() {
            return all;
        }
        all.extend_from_slice(&chunk);
    }
}

fn big() -> Vec<u8> {
    (0..CHUNK * 2 + 12_345).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn what_was_written_is_read_back_by_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let parts: [(&str, Option<u64>, &[u8]); 3] =
        [("state", Some(big().len() as u64), &big()), ("empty", Some(0), b""), ("table.a", Some(3), b"abc")];
    let manifest = record(&keeper, &parts).await.unwrap();
    assert_eq!(manifest.state.bytes, big().len() as u64 + 3);
    assert_eq!(manifest.parts[0].crc32c.len(), 3);
    let kept = Keeper::open(folder.path()).unwrap().find(&manifest.state).unwrap();
    assert_eq!(*kept.manifest(), manifest);
    for (part, _, bytes) in parts {
        assert_eq!(read(&kept, part).await, bytes, "{part}");
    }
}

#[tokio::test]
async fn the_digest_is_the_documented_one_whether_lengths_are_announced_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let announced = record(&keeper, &[("a", Some(2), b"xy"), ("b", Some(0), b"")]).await.unwrap();
    let unknown = record(&keeper, &[("a", None, b"xy"), ("b", Some(0), b"")]).await.unwrap();
    assert_eq!(announced, unknown);
    let mut expected = blake3::Hasher::new();
    expected.update(&[1, 0, 0, 0]).update(b"a").update(&[2, 0, 0, 0, 0, 0, 0, 0]).update(b"xy");
    expected.update(&[1, 0, 0, 0]).update(b"b").update(&[0; 8]);
    assert_eq!(announced.state.digest.0, expected.finalize().to_hex().to_string());
    let moved = record(&keeper, &[("a", Some(1), b"x"), ("b", Some(1), b"y")]).await.unwrap();
    assert_ne!(moved.state.digest, announced.state.digest, "the same bytes in other parts are another state");
}

#[tokio::test]
async fn a_part_of_another_length_than_announced_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    for announced in [1, 3] {
        let error = record(&keeper, &[("a", Some(announced), b"xy")]).await.unwrap_err();
        assert!(matches!(error, RecordError::Length { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let manifest = record(&keeper, &[("a", Some(5), b"hello")]).await.unwrap();
    let path = keeper.path(&manifest.state);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&path, &bad).unwrap();
        let found = match keeper.find(&manifest.state) {
            Err(_) => true,
            Ok(kept) => kept.chunk(&name("a"), 0).await.is_err(),
        };
        assert!(found, "bit flipped at {at}");
    }
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(keeper.find(&manifest.state).is_err(), "cut at {length}");
    }
}

#[tokio::test]
async fn only_what_is_referred_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let old = record(&keeper, &[("a", Some(1), b"1")]).await.unwrap().state;
    let new = record(&keeper, &[("a", Some(1), b"2")]).await.unwrap().state;
    keeper.retain(&[&new]).unwrap();
    assert!(keeper.find(&old).is_err());
    assert!(keeper.find(&new).is_ok());
    fs::write(folder.path().join("7.incoming"), b"half").unwrap();
    Keeper::open(folder.path()).unwrap();
    assert!(!folder.path().join("7.incoming").exists());
}

async fn checkpoint(keeper: &Keeper, epoch: u64, number: u64, bytes: &[u8]) -> StateId {
    let mut recorder = keeper.record_checkpoint(Mark { epoch: Epoch(epoch), number });
    recorder.part(name("a"), None).await.unwrap();
    recorder.bytes(Bytes::copy_from_slice(bytes)).await.unwrap();
    recorder.finish(number, String::new()).await.unwrap().synced().await.unwrap().state
}

#[tokio::test]
async fn the_newest_whole_checkpoint_of_an_epoch_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let known = record(&keeper, &[("a", Some(1), b"0")]).await.unwrap().state;
    let newest = |keeper: &Keeper| keeper.newest(Epoch(3), Some(&known)).unwrap();
    assert_eq!(newest(&keeper), (Some(known.clone()), 0));
    checkpoint(&keeper, 2, 9, b"of an earlier epoch").await;
    assert_eq!(newest(&keeper), (Some(known.clone()), 0));
    let older = checkpoint(&keeper, 3, 4, b"older").await;
    let newer = checkpoint(&keeper, 3, 5, b"newer").await;
    assert_eq!(newest(&Keeper::open(folder.path()).unwrap()), (Some(newer.clone()), 5));
    // Its file has its name, but not every byte came to the disk before the machine lost its power.
    let mut bytes = fs::read(keeper.path(&newer)).unwrap();
    bytes[0] ^= 1;
    fs::write(keeper.path(&newer), bytes).unwrap();
    assert_eq!(newest(&keeper), (Some(older.clone()), 5), "its number is not given again");
    keeper.remove(&newer).unwrap();
    keeper.remove(&newer).unwrap();
    assert_eq!(newest(&keeper), (Some(older), 4));
    assert_eq!(keeper.newest(Epoch(4), None).unwrap(), (None, 0));
}

#[test]
fn an_identity_from_outside_does_not_lead_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let evil = StateId { seq: 1, digest: "../../etc/passwd".into(), bytes: 0 };
    assert_eq!(keeper.path(&evil).parent(), Some(folder.path()));
}
