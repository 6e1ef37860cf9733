//! Snapshot files: the whole state at one position of the log.
//!
//! ```text
//! snapshot-<index>:  magic "WEFTSNAP" │ format u32 │ index u64 │ term u64 │ n_voters u32 │ voters u64 each
//!                    │ n_learners u32 │ learners u64 each │ state_bytes u64 │ state
//!                    │ xxh3 of all before u64                                  (integers little-endian)
//! ```
//!
//! A file gets its name only when it is whole and synced, so one that does not decode was damaged later and is refused, never
//! skipped: behind it the log may be gone. The same bytes travel to a member that lags, which checks them once more.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::{self, ConfState};
use raft_engine::env::Handle;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::error::Error;
use crate::membership::Membership;
use crate::position::Position;

const MAGIC: &[u8; 8] = b"WEFTSNAP";
const FORMAT: u32 = 2;
/// The format without learners, which is still read.
const FORMAT_WITHOUT_LEARNERS: u32 = 1;
const CHECKSUM_BYTES: usize = 8;
const NAME_PREFIX: &str = "snapshot-";
const PARTIAL_SUFFIX: &str = ".partial";

/// The state at `position`, borrowed from the bytes of a file or message.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot<'a> {
    pub(crate) position: Position,
    pub(crate) members: Membership,
    pub(crate) state: &'a [u8],
}

impl Snapshot<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Membership { voters, learners } = &self.members;
        let members_bytes = 4 + 8 * voters.len() + 4 + 8 * learners.len();
        let header_bytes = MAGIC.len() + 4 + 8 + 8 + members_bytes + 8;
        let mut image = Vec::with_capacity(header_bytes + self.state.len() + CHECKSUM_BYTES);
        image.extend_from_slice(MAGIC);
        image.extend_from_slice(&FORMAT.to_le_bytes());
        image.extend_from_slice(&self.position.to_bytes());
        for members in [voters, learners] {
            let n = u32::try_from(members.len()).expect("a group has few members");
            image.extend_from_slice(&n.to_le_bytes());
            for member in members {
                image.extend_from_slice(&member.to_le_bytes());
            }
        }
        image.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        image.extend_from_slice(self.state);
        image.extend_from_slice(&xxh3_64(&image).to_le_bytes());
        image
    }
}

/// Reads what [`Snapshot::encode`] wrote, or says what is wrong with it.
pub(crate) fn decode(image: &[u8]) -> Result<Snapshot<'_>, String> {
    let mut reader = Reader { rest: image };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err("it does not begin like a snapshot".to_owned());
    }
    let format = reader.u32()?;
    if ![FORMAT, FORMAT_WITHOUT_LEARNERS].contains(&format) {
        return Err(format!(
            "its format is {format}, this version reads formats up to {FORMAT}"
        ));
    }
    check_sum(image)?;
    let position = Position {
        index: reader.u64()?,
        term: reader.u64()?,
    };
    let voters = reader.members()?;
    let learners = match format {
        FORMAT => reader.members()?,
        _ => Vec::new(),
    };
    let state_bytes = usize::try_from(reader.u64()?).map_err(|_| "its size is absurd")?;
    let state = reader.take(state_bytes)?;
    if reader.rest.len() != CHECKSUM_BYTES {
        return Err("its size is not what it says".to_owned());
    }
    Ok(Snapshot {
        position,
        members: Membership { voters, learners },
        state,
    })
}

fn check_sum(image: &[u8]) -> Result<(), String> {
    let (content, checksum) = image
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or("it is cut short")?;
    if xxh3_64(content) != u64::from_le_bytes(*checksum) {
        return Err("its checksum does not fit".to_owned());
    }
    Ok(())
}

/// Reads the message of the Raft library that carries a snapshot, after checking it against its own metadata.
pub(crate) fn decode_message(message: &eraftpb::Snapshot) -> Result<Snapshot<'_>, String> {
    let snapshot = decode(message.get_data())?;
    let metadata = message.get_metadata();
    let members = Membership::from(metadata.get_conf_state());
    if snapshot.position != Position::from(metadata) || snapshot.members != members {
        return Err("it is not the snapshot that its message announces".to_owned());
    }
    Ok(snapshot)
}

/// Wraps the bytes of a snapshot file for the Raft library.
pub(crate) fn to_message(image: Vec<u8>) -> Result<eraftpb::Snapshot, String> {
    let snapshot = decode(&image)?;
    let mut message = eraftpb::Snapshot::default();
    let metadata = message.mut_metadata();
    metadata.index = snapshot.position.index;
    metadata.term = snapshot.position.term;
    metadata.conf_state = Some(ConfState::from(&snapshot.members)).into();
    message.data = image.into();
    Ok(message)
}

/// Writes a snapshot file so that it is there whole or not at all, and lasts.
pub(crate) fn write<D: Disk>(
    disk: &D,
    folder: &Path,
    index: u64,
    image: &[u8],
    failpoint: fn(&'static str),
) -> io::Result<()> {
    let path = path_of(folder, index);
    let partial = folder.join(format!("{NAME_PREFIX}{index}{PARTIAL_SUFFIX}"));
    let file = Arc::new(disk.create(&partial)?);
    // One of an interrupted write may be there.
    file.truncate(0)?;
    disk.new_writer(Arc::clone(&file))?.write_all(image)?;
    file.sync()?;
    failpoint("snapshot-write");
    disk.rename(&partial, &path)?;
    disk.sync_folder(folder)?;
    failpoint("snapshot-written");
    Ok(())
}

/// Reads the newest snapshot file: its path and its bytes, which are not checked yet.
pub(crate) fn read_newest(folder: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
    let indexes = indexes(folder).map_err(|error| Error::io(folder, error))?;
    let Some(index) = indexes.into_iter().max() else {
        return Ok(None);
    };
    let path = path_of(folder, index);
    let image = fs::read(&path).map_err(|error| Error::io(&path, error))?;
    Ok(Some((path, image)))
}

/// Removes the snapshots before `index`, and what an interrupted write left behind.
///
/// A file that cannot be removed only takes space, so that is logged and no more.
pub(crate) fn remove_older(folder: &Path, index: u64) {
    if let Err(error) = try_remove_older(folder, index) {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove old snapshots");
    }
}

fn try_remove_older(folder: &Path, index: u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(suffix) = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME_PREFIX))
        else {
            continue;
        };
        let is_older = suffix.parse::<u64>().is_ok_and(|older| older < index);
        if is_older || suffix.ends_with(PARTIAL_SUFFIX) {
            fs::remove_file(folder.join(&name))?;
        }
    }
    Ok(())
}

fn indexes(folder: &Path) -> io::Result<Vec<u64>> {
    let mut indexes = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let suffix = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME_PREFIX));
        indexes.extend(suffix.and_then(|suffix| suffix.parse::<u64>().ok()));
    }
    Ok(indexes)
}

fn path_of(folder: &Path, index: u64) -> PathBuf {
    folder.join(format!("{NAME_PREFIX}{index}"))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or("it is cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn members(&mut self) -> Result<Vec<u64>, String> {
        let n = self.u32()?;
        (0..n).map(|_| self.u64()).collect()
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use raft_engine::env::DefaultFileSystem;

    use super::*;

    fn example() -> Snapshot<'static> {
        Snapshot {
            position: Position { index: 7, term: 3 },
            members: Membership {
                voters: vec![1, 2, 3],
                learners: vec![4],
            },
            state: b"the state",
        }
    }

    #[test]
    fn decodes_what_it_encodes() {
        assert_eq!(decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn a_file_without_learners_is_read() {
        let members = Membership {
            voters: vec![1, 2, 3],
            learners: Vec::new(),
        };
        let without = Snapshot {
            members,
            ..example()
        };
        let mut image = without.encode();
        image.truncate(image.len() - CHECKSUM_BYTES);
        image[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&1u32.to_le_bytes());
        let n_learners_at = MAGIC.len() + 4 + 8 + 8 + 4 + 3 * 8;
        image.drain(n_learners_at..n_learners_at + 4);
        image.extend_from_slice(&xxh3_64(&image).to_le_bytes());
        assert_eq!(decode(&image), Ok(without));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let image = example().encode();
        for bit in 0..image.len() * 8 {
            let mut damaged = image.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit} was not missed");
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let image = example().encode();
        for length in 0..image.len() {
            assert!(decode(&image[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_message_with_another_position_is_refused() {
        let mut message = to_message(example().encode()).unwrap();
        assert_eq!(decode_message(&message), Ok(example()));
        message.mut_metadata().index += 1;
        assert!(decode_message(&message).is_err());
    }

    #[test]
    fn the_newest_file_is_read_and_the_others_go() {
        let folder = tempfile::tempdir().unwrap();
        for index in [9, 10] {
            write(
                &DefaultFileSystem,
                folder.path(),
                index,
                &[index as u8],
                |_| {},
            )
            .unwrap();
        }
        fs::write(folder.path().join("snapshot-11.partial"), b"half").unwrap();
        let (_, image) = read_newest(folder.path()).unwrap().unwrap();
        assert_eq!(image, [10]);
        remove_older(folder.path(), 10);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
