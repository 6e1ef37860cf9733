//! A disk that a crash takes back to what was synced.
//!
//! Files lie where they are named; what was written since the last sync can be undone. A crash keeps the first of those
//! writes and renames, any number of them, and cuts one in two: that is what disks do to one file. Files are made and
//! removed for good.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use crate::disk::Disk;
use crate::simulation::Random;

/// The worth of a disk's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// Synced writes stay.
    #[default]
    Kept,
    /// A planted fault: nothing is ever synced.
    Skipped,
    /// A planted fault: a sync makes only what was written before the last one stay.
    Late,
}

/// The disk of one member from its start to its crash.
#[derive(Clone)]
pub struct FragileDisk(Arc<Mutex<State>>);

struct State {
    sync: Sync,
    /// The member is dead: what its destructors write goes nowhere.
    crashed: bool,
    unsynced: BTreeMap<PathBuf, Vec<Unsynced>>,
    renames: Vec<Rename>,
}

/// A write, and the bytes that it replaced.
struct Unsynced {
    offset: u64,
    old: Vec<u8>,
    old_size: u64,
    new_bytes: u64,
    /// A sync has passed over it.
    late: bool,
}

/// A rename, and the file that it replaced.
struct Rename {
    from: PathBuf,
    to: PathBuf,
    replaced: Option<Vec<u8>>,
}

impl FragileDisk {
    /// A disk on which nothing is unsynced.
    pub fn new(sync: Sync) -> FragileDisk {
        FragileDisk(Arc::new(Mutex::new(State {
            sync,
            crashed: false,
            unsynced: BTreeMap::new(),
            renames: Vec::new(),
        })))
    }

    /// Takes the power away: drop the member after this, and start the next one on a new disk over the same files.
    ///
    /// `seed` decides how much of what was not synced is lost.
    pub fn crash(&self, seed: u64) {
        let mut random = Random(seed);
        let mut state = self.state();
        state.crashed = true;
        for (path, writes) in std::mem::take(&mut state.unsynced) {
            if path.exists() {
                undo_some(&path, &writes, &mut random)
                    .expect("a file of the simulation is written");
            }
        }
        let renames = std::mem::take(&mut state.renames);
        let kept = random.next() as usize % (renames.len() + 1);
        for rename in renames[kept..].iter().rev() {
            rename.undo().expect("a file of the simulation is renamed");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn undo_some(path: &Path, writes: &[Unsynced], random: &mut Random) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let kept = random.next() as usize % (writes.len() + 1);
    let Some((torn, lost)) = writes[kept..].split_first() else {
        return Ok(());
    };
    for write in lost.iter().rev() {
        write.undo(&file, 0)?;
    }
    torn.undo(&file, random.next() % (torn.new_bytes + 1))
}

impl Unsynced {
    /// Puts back what was there before, behind the first `kept` bytes.
    fn undo(&self, file: &File, kept: u64) -> io::Result<()> {
        let old = self.old.get(kept as usize..).unwrap_or_default();
        file.write_all_at(old, self.offset + kept)?;
        let kept_end = if kept == 0 { 0 } else { self.offset + kept };
        file.set_len(self.old_size.max(kept_end))
    }
}

impl Rename {
    fn undo(&self) -> io::Result<()> {
        if !self.to.exists() {
            return Ok(());
        }
        fs::rename(&self.to, &self.from)?;
        match &self.replaced {
            Some(bytes) => fs::write(&self.to, bytes),
            None => Ok(()),
        }
    }
}

impl State {
    fn write(&mut self, path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.crashed {
            return Ok(());
        }
        let old_size = file.metadata()?.len();
        let old_end = old_size.min(offset + bytes.len() as u64);
        let mut old = vec![0; old_end.saturating_sub(offset) as usize];
        file.read_exact_at(&mut old, offset.min(old_size))?;
        file.write_all_at(bytes, offset)?;
        self.unsynced
            .entry(path.to_owned())
            .or_default()
            .push(Unsynced {
                offset,
                old,
                old_size,
                new_bytes: bytes.len() as u64,
                late: false,
            });
        Ok(())
    }

    /// Cuts a file, or makes it longer by zeros.
    fn set_size(&mut self, path: &Path, file: &File, size: u64) -> io::Result<()> {
        let old_size = file.metadata()?.len();
        if self.crashed || size == old_size {
            return Ok(());
        }
        let mut old = vec![0; old_size.saturating_sub(size) as usize];
        file.read_exact_at(&mut old, size.min(old_size))?;
        file.set_len(size)?;
        self.unsynced
            .entry(path.to_owned())
            .or_default()
            .push(Unsynced {
                offset: size.min(old_size),
                old,
                old_size,
                new_bytes: 0,
                late: false,
            });
        Ok(())
    }

    fn sync(&mut self, path: &Path) {
        match self.sync {
            Sync::Kept => drop(self.unsynced.remove(path)),
            Sync::Skipped => {}
            Sync::Late => {
                if let Some(writes) = self.unsynced.get_mut(path) {
                    let n_late = writes.iter().take_while(|write| write.late).count();
                    writes.drain(..n_late);
                    writes.iter_mut().for_each(|write| write.late = true);
                }
            }
        }
    }
}

/// An open file.
pub struct OpenFile {
    path: PathBuf,
    file: File,
    disk: FragileDisk,
}

/// A place in an open file.
pub struct Cursor {
    file: Arc<OpenFile>,
    offset: u64,
}

impl FileSystem for FragileDisk {
    type Handle = OpenFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        self.open_with(path.as_ref(), &options)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(permission == Permission::ReadWrite);
        self.open_with(path.as_ref(), &options)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let mut state = self.state();
        if state.crashed {
            return Ok(());
        }
        state.unsynced.remove(path.as_ref());
        fs::remove_file(path)
    }

    /// Renames of the log's files last at once: it syncs its folder itself.
    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let mut state = self.state();
        if state.crashed {
            return Ok(());
        }
        let replaced = fs::read(to).ok();
        fs::rename(from, to)?;
        if let Some(writes) = state.unsynced.remove(from) {
            state.unsynced.insert(to.to_owned(), writes);
        }
        if !is_log_file(to) {
            state.renames.push(Rename {
                from: from.to_owned(),
                to: to.to_owned(),
                replaced,
            });
        }
        Ok(())
    }

    fn new_reader(&self, file: Arc<OpenFile>) -> io::Result<Cursor> {
        Ok(Cursor { file, offset: 0 })
    }

    fn new_writer(&self, file: Arc<OpenFile>) -> io::Result<Cursor> {
        Ok(Cursor { file, offset: 0 })
    }
}

fn is_log_file(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("log"))
}

impl Disk for FragileDisk {
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.sync == Sync::Kept {
            state
                .renames
                .retain(|rename| rename.to.parent() != Some(folder));
        }
        Ok(())
    }

    /// At once, so that a seed repeats: a simulation has one thread.
    fn in_background(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

impl FragileDisk {
    fn open_with(&self, path: &Path, options: &OpenOptions) -> io::Result<OpenFile> {
        Ok(OpenFile {
            path: path.to_owned(),
            file: options.open(path)?,
            disk: self.clone(),
        })
    }
}

impl Handle for OpenFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        let mut state = self.disk.state();
        state.set_size(&self.path, &self.file, offset as u64)
    }

    fn file_size(&self) -> io::Result<usize> {
        Ok(self.file.metadata()?.len() as usize)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(&self.path);
        Ok(())
    }
}

impl Read for Cursor {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let OpenFile { path, file, disk } = &*self.file;
        disk.state().write(path, file, self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = |from: u64, by: i64| {
            let to = from.checked_add_signed(by);
            to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        };
        self.offset = match to {
            SeekFrom::Start(offset) => offset,
            SeekFrom::Current(by) => moved(self.offset, by)?,
            SeekFrom::End(by) => moved(self.file.file_size()? as u64, by)?,
        };
        Ok(self.offset)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(offset)?;
        self.offset = offset as u64;
        Ok(())
    }

    fn allocate(&mut self, _offset: usize, _size: usize) -> io::Result<()> {
        // Files grow as they are written.
        Ok(())
    }
}
