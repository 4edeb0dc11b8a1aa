//! Every file operation of the store, behind one trait, so that a simulated disk can fail or
//! lose power at each of them.
use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; created empty, readable by its owner only, if it does not exist.
    Write,
    /// As `Write`, emptied if it exists.
    Fresh,
}

/// An open file. Writes are visible to every reader at once and durable after [`DiskFile::sync`].
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes at `at`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all bytes at `at`, growing the file where needed. After an error any part may be there.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Returns when the contents are on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Lets the disk begin with these bytes, so that a later [`DiskFile::sync`] has less to wait for.
    /// Promises nothing.
    fn begin_sync(&self, _bytes: Range<u64>) {}
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|n| n == 0)
    }
}

/// An exclusive lock on a file, held until dropped or until the process ends.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>);

impl Lock {
    /// A lock that is given back when `holder` is dropped.
    pub fn new(holder: impl Any + Send + Sync) -> Lock {
        Lock(Box::new(holder))
    }
}

/// What the store asks of a disk.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_dir`] of both.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; those who have it open keep reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a folder, in no order.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a private folder and its parents if it does not exist; then checks that only its
    /// owner, this user, can write it: the inner error says what was found instead.
    fn private_dir(&self, folder: &Path) -> io::Result<Result<(), String>>;
    /// Returns when the names in the folder are on the disk.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;
    /// Locks a file that exists; `None` if somebody has it, this process included.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Lock>>;
    /// Milliseconds since 1970.
    fn now(&self) -> u64;
}

/// The disk of this machine.
#[derive(Clone, Copy, Default, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>> {
        let write = how != How::Read;
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write).truncate(how == How::Fresh);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn private_dir(&self, folder: &Path) -> io::Result<Result<(), String>> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Err("a file".to_string())),
            made => made.and_then(|()| privacy(folder)),
        }
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        // Only Unix lets a folder be opened and synced.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis().try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(unix)]
fn privacy(folder: &Path) -> io::Result<Result<(), String>> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(folder)?;
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    let user = unsafe { libc::geteuid() };
    Ok(match (found.uid(), found.mode() & 0o7777) {
        (owner, _) if owner != user => Err(format!("owner {owner}, and this is user {user}")),
        (_, mode) if mode & 0o022 != 0 => Err(format!("mode {mode:o}")),
        _ => Ok(()),
    })
}

#[cfg(not(unix))]
fn privacy(_: &Path) -> io::Result<Result<(), String>> {
    Ok(Ok(())) // The user's profile folder is private by inheritance.
}

impl DiskFile for File {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match read_some(self, &mut buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, at)
    }

    #[cfg(windows)]
    fn write_at(&self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = std::os::windows::fs::FileExt::seek_write(self, bytes, at)?;
            (bytes, at) = (&bytes[n..], at + n as u64);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn begin_sync(&self, bytes: Range<u64>) {
        use std::os::fd::AsRawFd;
        let offset = |n: u64| libc::off64_t::try_from(n).unwrap_or(libc::off64_t::MAX);
        let (start, len) = (offset(bytes.start), offset(bytes.end - bytes.start));
        // SAFETY: the descriptor is open while `self` lives; no memory is passed. A refusal costs speed.
        unsafe { libc::sync_file_range(self.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

#[cfg(unix)]
fn read_some(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, at)
}

#[cfg(windows)]
fn read_some(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, at)
}
