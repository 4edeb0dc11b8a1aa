//! A disk in memory that keeps no promise it did not make: what is not synced may be lost, torn or
//! reordered by a loss of power, and any call may fail or be the last one.
use ds4_runtime::store::{Disk, DiskFile, How, Lock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Rng;

/// What happens at one call.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// It fails, having done some of its work; later calls work.
    Fail,
    /// It and all later ones fail: the process died in it.
    Die,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone)]
enum Naming {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    /// Within one folder, so it happens at once or not.
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Default)]
struct World {
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    pending: Vec<Naming>,
    locks: BTreeSet<u64>,
    next: u64,
    calls: u64,
    fault: Option<(u64, Fault)>,
    dead: bool,
    room: Option<u64>,
    clock: u64,
}

/// A handle on the simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct Sim(Arc<Mutex<World>>);

struct SimFile(Sim, u64);

struct Held(Sim, u64);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.world().locks.remove(&self.1);
    }
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let end = *at as usize + bytes.len();
                data.resize(data.len().max(end), 0);
                data[*at as usize..end].copy_from_slice(bytes);
            }
            Change::Truncate(len) => data.resize(*len as usize, 0),
        }
    }

    /// What of it reached the disk.
    fn torn(&self, rng: &mut Rng) -> Option<Change> {
        match (rng.below(4), self) {
            (0, _) => None,
            (1, Change::Write(at, bytes)) => {
                let cut = rng.below(bytes.len() as u64 + 1) as usize;
                Some(Change::Write(*at, bytes[..cut].to_vec()))
            }
            (2, Change::Write(at, bytes)) => {
                let cut = rng.below(bytes.len() as u64 + 1) as usize;
                Some(Change::Write(at + cut as u64, bytes[cut..].to_vec()))
            }
            _ => Some(self.clone()),
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Naming::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
            Naming::Unlink(path) => drop(names.remove(path)),
            Naming::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn folder(&self) -> &Path {
        let (Naming::Link(path, _) | Naming::Unlink(path) | Naming::Rename(path, ..)) = self;
        path.parent().unwrap()
    }
}

impl World {
    /// Counts a call; true if it is to fail now, having done some of its work.
    fn call(&mut self) -> Result<bool> {
        if self.dead {
            return Err(Error::other("the process is dead"));
        }
        self.calls += 1;
        match self.fault.filter(|(at, _)| *at == self.calls) {
            Some((_, fault)) => {
                self.dead = fault == Fault::Die;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn whole_call(&mut self) -> Result<()> {
        if self.call()? { Err(Error::other("injected")) } else { Ok(()) }
    }

    fn name(&mut self, change: Naming) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn inode(&self, path: &Path) -> Result<u64> {
        self.names.get(path).copied().ok_or_else(|| Error::from(ErrorKind::NotFound))
    }

    fn create(&mut self, path: &Path) -> u64 {
        self.next += 1;
        self.inodes.insert(self.next, Inode::default());
        self.name(Naming::Link(path.to_path_buf(), self.next));
        self.next
    }

    fn change(&mut self, inode: u64, change: Change) {
        let file = self.inodes.get_mut(&inode).unwrap();
        change.apply(&mut file.data);
        file.pending.push(change);
    }

    fn used(&self) -> u64 {
        self.names.values().map(|i| self.inodes[i].data.len() as u64).sum()
    }
}

impl Sim {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Makes the call number `at`, counted from now, go wrong.
    pub fn fault(&self, at: u64, fault: Fault) {
        let mut world = self.world();
        world.fault = Some((world.calls + at, fault));
    }

    /// Leaves room for this many bytes in all.
    pub fn room(&self, bytes: Option<u64>) {
        self.world().room = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.world().used()
    }

    /// Lets time pass.
    pub fn wait(&self, milliseconds: u64) {
        self.world().clock += milliseconds;
    }

    /// Another disk with the same contents, as the next process finds it. With `power` lost, what
    /// was not synced is there in part, in any order.
    pub fn reboot(&self, power: Option<&mut Rng>) -> Sim {
        let mut world = self.world().clone();
        (world.dead, world.fault, world.locks) = (false, None, BTreeSet::new());
        if let Some(rng) = power {
            for file in world.inodes.values_mut() {
                file.data = file.durable.clone();
                for change in std::mem::take(&mut file.pending) {
                    change.torn(rng).inspect(|c| c.apply(&mut file.data));
                }
                file.durable = file.data.clone();
            }
            for change in std::mem::take(&mut world.pending) {
                if rng.below(2) == 0 {
                    change.apply(&mut world.durable);
                }
            }
            world.names = world.durable.clone();
        }
        Sim(Arc::new(Mutex::new(world)))
    }

    /// Paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    /// The bytes of a file.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.inodes[&world.names[path]].data.clone()
    }

    /// Replaces the bytes of a file, durably.
    pub fn replace(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.world();
        let inode = match world.names.get(path) {
            Some(inode) => *inode,
            None => world.create(path),
        };
        let file = world.inodes.get_mut(&inode).unwrap();
        *file = Inode { data: bytes.clone(), durable: bytes, pending: Vec::new() };
    }
}

impl Disk for Sim {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        world.whole_call()?;
        let inode = match world.inode(path) {
            Err(_) if how != How::Read => world.create(path),
            found => found?,
        };
        if how == How::Fresh {
            world.change(inode, Change::Truncate(0));
        }
        Ok(Box::new(SimFile(self.clone(), inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut world = self.world();
        world.whole_call()?;
        let inode = world.inode(from)?;
        if from.parent() == to.parent() {
            world.name(Naming::Rename(from.into(), to.into(), inode));
        } else {
            world.name(Naming::Link(to.into(), inode));
            world.name(Naming::Unlink(from.into()));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut world = self.world();
        world.whole_call()?;
        world.inode(path)?;
        world.name(Naming::Unlink(path.into()));
        Ok(())
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let mut world = self.world();
        world.whole_call()?;
        let inside = world.names.keys().filter(|p| p.parent() == Some(folder));
        Ok(inside.map(|p| p.file_name().unwrap().to_str().unwrap().into()).collect())
    }

    fn private_dir(&self, _: &Path) -> Result<std::result::Result<(), String>> {
        self.world().whole_call().map(Ok)
    }

    fn sync_dir(&self, folder: &Path) -> Result<()> {
        let mut world = self.world();
        world.whole_call()?;
        let (here, elsewhere): (Vec<_>, _) =
            std::mem::take(&mut world.pending).into_iter().partition(|c| c.folder() == folder);
        world.pending = elsewhere;
        here.iter().for_each(|c| c.apply(&mut world.durable));
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Lock>> {
        let mut world = self.world();
        world.whole_call()?;
        let inode = world.inode(path)?;
        Ok(world.locks.insert(inode).then(|| Lock::new(Held(self.clone(), inode))))
    }

    fn now(&self) -> u64 {
        let mut world = self.world();
        world.clock += 1;
        world.clock
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let mut world = self.0.world();
        world.whole_call()?;
        let data = &world.inodes[&self.1].data;
        let rest = data.get(at as usize..).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        let mut world = self.0.world();
        let fails = world.call()?;
        let grows = (at + bytes.len() as u64).saturating_sub(world.inodes[&self.1].data.len() as u64);
        let left = world.room.map_or(u64::MAX, |room| room.saturating_sub(world.used()));
        if fails || grows > left {
            let part = bytes.len() / 2;
            let part = part.min(left as usize);
            world.change(self.1, Change::Write(at, bytes[..part].to_vec()));
            return Err(Error::from(ErrorKind::StorageFull));
        }
        world.change(self.1, Change::Write(at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut world = self.0.world();
        world.whole_call()?;
        let file = world.inodes.get_mut(&self.1).unwrap();
        file.durable = file.data.clone();
        file.pending.clear();
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let mut world = self.0.world();
        world.whole_call()?;
        Ok(world.inodes[&self.1].data.len() as u64)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        let mut world = self.0.world();
        world.whole_call()?;
        world.change(self.1, Change::Truncate(len));
        Ok(())
    }
}
