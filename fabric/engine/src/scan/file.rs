//! Files of inputs: on this machine, or objects of stores that jobs may use.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use weft_core::{ErrorCode, Location, Problem};
use weft_store::Grants;

use super::object::Object;
use super::unreadable;
use crate::plan::FileSplit;

/// Opens inputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    grants: Grants,
}

impl Inputs {
    /// Inputs of this machine, and of these stores.
    pub(crate) fn new(grants: &Grants) -> Self {
        Self {
            grants: grants.clone(),
        }
    }

    /// Stores that jobs may use.
    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Opens a path or a location. `bytes`: the size that it had when it was listed.
    pub(crate) fn open(&self, path: &str, bytes: u64) -> Result<InputFile, Problem> {
        self.open_version(path, bytes, None)
    }

    fn open_version(
        &self,
        path: &str,
        bytes: u64,
        e_tag: Option<&str>,
    ) -> Result<InputFile, Problem> {
        let source = match Location::is_one(path) {
            true => Source::Object(Arc::new(self.object(path, bytes, e_tag)?)),
            false => {
                let file = File::open(path).map_err(|error| unreadable(path, "", &error))?;
                Source::Local(file)
            }
        };
        Ok(InputFile {
            source,
            position: 0,
        })
    }

    /// Opens the file of a split. Errors: it is not as it was when the job was planned.
    pub(crate) fn open_split(&self, split: &FileSplit) -> Result<InputFile, Problem> {
        let file = self.open_version(&split.path, split.file_bytes, split.e_tag.as_deref())?;
        if let Source::Local(file) = &file.source {
            super::check_size(split, file)?;
        }
        Ok(file)
    }

    fn object(&self, path: &str, bytes: u64, e_tag: Option<&str>) -> Result<Object, Problem> {
        let wrong = |what: String| Problem::new(ErrorCode::InvalidJob, what);
        let location = Location::parse(path).map_err(wrong)?;
        let remote = self.grants.find(&location);
        let file = remote.and_then(|remote| remote.file_as_found(&location, bytes, e_tag));
        file.map(Object::new).map_err(|error| error.problem())
    }
}

/// A file that is read by position, or from the front.
pub(crate) struct InputFile {
    source: Source,
    /// Position of what is read from the front, of an object.
    position: u64,
}

enum Source {
    Local(File),
    Object(Arc<Object>),
}

impl InputFile {
    /// Size of the file.
    pub(crate) fn size(&self) -> io::Result<u64> {
        match &self.source {
            Source::Local(file) => Ok(file.metadata()?.len()),
            Source::Object(object) => Ok(object.bytes()),
        }
    }

    /// Tells which bytes are about to be read, in this order, each but once. Objects are fetched in such pieces, some
    /// ahead of their use.
    pub(crate) fn expect_in_order(&self, range: Range<u64>) {
        if let Source::Object(object) = &self.source {
            object.expect_in_order(range);
        }
    }

    /// Tells that the end of the file is about to be read, where footers are.
    pub(crate) fn expect_end(&self) {
        if let Source::Object(object) = &self.source {
            object.expect_end();
        }
    }

    /// Tells which bytes are about to be read, side by side.
    pub(crate) fn expect_side_by_side(&self, ranges: impl Iterator<Item = Range<u64>>) {
        if let Source::Object(object) = &self.source {
            object.expect_side_by_side(ranges.collect());
        }
    }

    /// Reads at a position; fewer bytes than asked for may come, none at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.source {
            Source::Local(file) => file.read_at(buffer, offset),
            Source::Object(object) => object.read_at(buffer, offset),
        }
    }

    /// Fills a buffer from a position. Errors: the file ends before.
    pub(crate) fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        match &self.source {
            Source::Local(file) => file.read_exact_at(buffer, offset),
            Source::Object(object) => {
                while !buffer.is_empty() {
                    let read = object.read_at(buffer, offset)?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Ok(())
            }
        }
    }

    /// Another handle on the file.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let source = match &self.source {
            Source::Local(file) => Source::Local(file.try_clone()?),
            Source::Object(object) => Source::Object(Arc::clone(object)),
        };
        Ok(Self {
            source,
            position: self.position,
        })
    }

    /// Why bytes of an object did not come, if decoders wrapped that in errors of their own.
    pub(crate) fn failure(&self) -> Failure {
        Failure(match &self.source {
            Source::Local(_) => None,
            Source::Object(object) => Some(Arc::clone(object)),
        })
    }
}

/// Remembers why bytes of an object did not come.
#[derive(Default)]
pub(crate) struct Failure(Option<Arc<Object>>);

impl Failure {
    /// The problem of a decoder: the store's, if it was that which failed.
    pub(super) fn or(&self, path: &str, decoder: impl FnOnce() -> Problem) -> Problem {
        match self.0.as_ref().and_then(|object| object.failure()) {
            Some(error) => unreadable(path, "", &error),
            None => decoder(),
        }
    }
}

impl Read for InputFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Local(file) => file.read(buffer),
            Source::Object(object) => {
                let read = object.read_at(buffer, self.position)?;
                self.position += read as u64;
                Ok(read)
            }
        }
    }
}

impl Seek for InputFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.source {
            Source::Local(file) => file.seek(to),
            Source::Object(object) => {
                let position = match to {
                    SeekFrom::Start(position) => Some(position),
                    SeekFrom::Current(by) => self.position.checked_add_signed(by),
                    SeekFrom::End(by) => object.bytes().checked_add_signed(by),
                };
                let before = || io::Error::from(io::ErrorKind::InvalidInput);
                self.position = position.ok_or_else(before)?;
                Ok(self.position)
            }
        }
    }
}

impl Length for InputFile {
    fn len(&self) -> u64 {
        self.size().unwrap_or(0)
    }
}

impl ChunkReader for InputFile {
    type T = BufReader<InputFile>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut file = self.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(file))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match &self.source {
            Source::Local(file) => file.get_bytes(start, length),
            Source::Object(object) => Ok(object.slice(start, length)?),
        }
    }
}
