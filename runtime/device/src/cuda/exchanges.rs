//! Exchanges with the GPUs of other ranks, which NCCL does: their stream beside that of the kernels, and how a rank waits for a GPU
//! whose work may wait for ranks that are gone.
//!
//! Invariants: all exchanges are queued in one stream, in the order of the plans' steps, which is that of all ranks; nothing waits for
//! the GPU without a look at the clock while an exchange is under way. An exchange is begun and ended by a number that the GPU
//! brings to the host's memory, so that the host knows which one is under way, in a CUDA graph too.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use std::{env, thread};

use cudarc::driver::CudaStream;
use cudarc::driver::result as driver;
use cudarc::driver::sys::CUdeviceptr;
use linc_plan::Movement;

use super::event::Event;
use super::gpu::{Gpu, failed};
use super::memory::{Memory, Pinned, Staging};
use super::nccl::{Communicator, Nccl, SHARE_VARIABLE, UniqueId};
use crate::DeviceError;
use crate::available_memory::{Available, MemorySource};
use crate::comm::{CommError, Group, SharedRanks, shown_gpus};
use crate::words::count;

/// Exchanges of all plans together.
const MOST: usize = 8192;
const WORD: usize = size_of::<u32>();

/// While the GPU is looked at without a rest.
const AWAKE: Duration = Duration::from_millis(200);
const NAP: Duration = Duration::from_micros(50);
/// How often NCCL and the other ranks are asked whether all is well.
const LOOK: Duration = Duration::from_millis(20);
/// What an abort of NCCL's may take, and work that is under way when a device is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other ranks' GPUs.
pub(super) struct Exchanges {
    gpu: Arc<Gpu>,
    ranks: SharedRanks,
    version: [u32; 3],
    /// Of all ranks first; then those of groups, by their members.
    communicators: Vec<Communicator>,
    by_members: BTreeMap<Vec<usize>, usize>,
    stream: Arc<CudaStream>,
    /// All numbers from 0 on, of which the GPU takes that of an exchange.
    numbers: Memory,
    /// What the GPU has brought: twice the number of the exchange that was begun last, and one more when it is over.
    mark: Pinned,
    named: Vec<(String, Group)>,
    under_way: Cell<bool>,
    /// What this rank may have of the GPU's memory, where it shares it.
    share: Option<Available>,
}

/// An exchange of a plan with addresses.
pub(super) struct BoundExchange {
    communicator: usize,
    movement: Movement,
    /// Of a part.
    bytes: usize,
    /// This rank's, in the group.
    place: usize,
    from: CUdeviceptr,
    to: CUdeviceptr,
    number: usize,
    /// The kernels before it are done.
    ready: Event,
    /// What came has come, and what was sent may change.
    over: Event,
}

impl Exchanges {
    /// Connects this rank's GPU with those of the others, which all call this.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] where NCCL is missing or too old on any rank, [`DeviceError::Ranks`] where the GPUs differ or
    /// do not come together.
    pub(super) fn connect(
        gpu: &Arc<Gpu>,
        number: usize,
        ranks: SharedRanks,
        staging: &mut Staging,
    ) -> Result<Exchanges, DeviceError> {
        let of_ranks = |error: CommError| DeviceError::Ranks(Box::new(error));
        let shared = |name: &str| env::var(name).unwrap_or_default();
        let own = format!("{number} {}", shown_gpus());
        let all = ranks.borrow_mut().gather_words("the GPUs", &own).map_err(of_ranks)?;
        let sharing = all.iter().filter(|other| **other == own).count();
        let opened = Nccl::open().and_then(|nccl| may_share(&nccl, sharing).map(|()| nccl));
        let said = opened.as_ref().err().map_or(String::new(), ToString::to_string);
        let all = ranks.borrow_mut().gather_words("opening NCCL", &said).map_err(of_ranks)?;
        let nccl = Arc::new(opened?);
        if let Some(rank) = all.iter().position(|said| !said.is_empty()) {
            return Err(DeviceError::Unsupported(format!("rank {rank}: {}", all[rank])));
        }
        let [a, b, c] = nccl.version();
        let (compute, minor) = gpu.capability;
        let mut ranks_now = ranks.borrow_mut();
        let facts = [
            ("the GPU", format!("{}, compute capability {compute}.{minor}", gpu.name)),
            ("NCCL's version", format!("{a}.{b}.{c}")),
            (SHARE_VARIABLE.0, shared(SHARE_VARIABLE.0)),
        ];
        ranks_now.agree(&facts).map_err(of_ranks)?;
        let (rank, size, world) = (ranks_now.rank(), ranks_now.size(), ranks_now.world());
        let refused = |action: &str, message: String| {
            of_ranks(CommError::Call { rank, action: action.to_owned(), message })
        };
        let mut id = [0; UniqueId::BYTES];
        if rank == 0 {
            id = nccl.unique_id().map_err(|message| refused("ncclGetUniqueId", message))?.bytes();
        }
        ranks_now.broadcast("NCCL's id", &world, 0, &mut id).map_err(of_ranks)?;
        gpu.bind()?;
        let watchdog = ranks_now.watch("ncclCommInitRank");
        let all = Communicator::connect(&nccl, UniqueId::of(id), rank, size);
        drop(watchdog);
        drop(ranks_now);
        let all = all.map_err(|message| refused("ncclCommInitRank", message))?;
        let numbers: Vec<u8> = (0..2 * MOST as u32).flat_map(u32::to_le_bytes).collect();
        let table = Memory::new(gpu, numbers.len() as u64)?;
        table.write(0, &numbers, staging)?;
        let available = gpu.memory().map(|(bytes, _)| Available { bytes, source: MemorySource::Gpu });
        Ok(Exchanges {
            version: nccl.version(),
            communicators: vec![all],
            by_members: BTreeMap::from([(world.members().to_vec(), 0)]),
            stream: gpu.context.new_stream().map_err(failed("creating a stream"))?,
            numbers: table,
            mark: Pinned::new(gpu, WORD)?,
            named: vec![(String::from("the steps of its GPU"), world)],
            under_way: Cell::new(false),
            share: available.map(|available| available.share(sharing)),
            gpu: Arc::clone(gpu),
            ranks,
        })
    }

    /// `NCCL 2.32.3`
    pub(super) fn describe(&self) -> String {
        let [a, b, c] = self.version;
        format!("NCCL {a}.{b}.{c}")
    }

    /// What this rank may have of the memory that there was when it was connected.
    pub(super) fn share(&self) -> Option<Available> {
        self.share.clone()
    }

    /// This rank among those that it is connected with.
    pub(super) fn ranks(&self) -> &SharedRanks {
        &self.ranks
    }

    /// Has a communicator for each of these groups, which all ranks ask for alike, each for its own.
    ///
    /// # Errors
    /// What NCCL says.
    pub(super) fn prepare(&mut self, groups: &[Group]) -> Result<(), DeviceError> {
        self.gpu.bind()?;
        for group in groups {
            if self.by_members.contains_key(group.members()) {
                continue;
            }
            let first = group.members().first().copied().unwrap_or(0);
            let watchdog = self.ranks.borrow().watch("ncclCommSplit");
            let split = self.communicators[0].split(first, group.place(), group.size());
            drop(watchdog);
            let split = split.map_err(|message| self.call("ncclCommSplit", message))?;
            self.by_members.insert(group.members().to_vec(), self.communicators.len());
            self.communicators.push(split);
        }
        Ok(())
    }

    fn call(&self, action: &str, message: String) -> DeviceError {
        let rank = self.ranks.borrow().rank();
        DeviceError::Ranks(Box::new(CommError::Call { rank, action: action.to_owned(), message }))
    }

    /// An exchange of a plan, in a group that is [prepared](Exchanges::prepare).
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] for more exchanges than can be told apart.
    pub(super) fn bind(
        &mut self,
        exchange: &linc_plan::Exchange,
        group: &Group,
        name: &str,
        (from, to): (CUdeviceptr, CUdeviceptr),
    ) -> Result<BoundExchange, DeviceError> {
        let number = self.named.len();
        if number == MOST {
            return Err(DeviceError::Unsupported(format!("more than {MOST} exchanges in all programs")));
        }
        self.gpu.bind()?;
        self.named.push((name.to_owned(), group.clone()));
        let communicator = self.by_members.get(group.members()).copied().unwrap_or(0);
        let [ready, over] = [Event::new(&self.gpu, false)?, Event::new(&self.gpu, false)?];
        let (movement, bytes) = (exchange.movement, exchange.part_bytes as usize);
        let place = group.place();
        Ok(BoundExchange { communicator, movement, bytes, place, from, to, number, ready, over })
    }

    /// Queues an exchange behind the kernels that were queued before it. Those after it run beside it, until one
    /// [waits](BoundExchange::hold).
    ///
    /// # Errors
    /// What NCCL and the driver say.
    ///
    /// # Safety
    /// Both places are live, with the bytes of the exchange; the GPU's context is bound.
    pub(super) unsafe fn start(&self, bound: &BoundExchange) -> Result<(), DeviceError> {
        let BoundExchange { movement, bytes, place, from, to, number, .. } = bound;
        let stream = self.stream.cu_stream();
        // SAFETY: both streams are of this GPU.
        unsafe {
            bound.ready.record(self.gpu.stream.cu_stream())?;
            bound.ready.hold(stream)?;
        }
        self.note(2 * number)?;
        let communicator = &self.communicators[bound.communicator];
        let own = (place * bytes) as CUdeviceptr;
        // SAFETY: as the caller vouches; this rank's part lies within both places of an all-to-all, which do not overlap.
        let queued = unsafe {
            match movement {
                Movement::AllGather => communicator.all_gather(*from, *to, *bytes, stream),
                Movement::AllToAll => {
                    driver::memcpy_dtod_async(to + own, from + own, *bytes, stream)
                        .map_err(failed("copying on the GPU"))?;
                    communicator.all_to_all(*from, *to, *bytes, stream)
                }
                Movement::AllReduce => communicator.all_reduce(*from, *to, *bytes, stream),
                Movement::ReduceScatter => communicator.reduce_scatter(*from, *to, *bytes, stream),
            }
        };
        queued.map_err(|message| self.call(&self.named[*number].0, message))?;
        self.note(2 * number + 1)?;
        self.under_way.set(true);
        // SAFETY: the stream is of this GPU.
        unsafe { bound.over.record(stream) }
    }

    /// Queues that the host hears of a place in the stream.
    fn note(&self, number: usize) -> Result<(), DeviceError> {
        let from = self.numbers.start() + (number * WORD) as CUdeviceptr;
        // SAFETY: the table has the number, and the pinned word lives as long as the stream.
        unsafe { self.mark.copy_from(from, self.stream.cu_stream()) }
    }

    /// From now on the GPU may wait for other ranks: a graph with exchanges was launched.
    pub(super) fn launched(&self) {
        self.under_way.set(true);
    }

    /// Comes back when the GPU has done all that was queued, and looks after the other ranks meanwhile.
    ///
    /// # Errors
    /// [`DeviceError::Ranks`] where an exchange takes longer than it may, NCCL finds something wrong, or a rank is gone: all ranks
    /// end by it.
    pub(super) fn settle(&self) -> Result<(), DeviceError> {
        if !self.under_way.get() {
            return Ok(());
        }
        self.gpu.bind()?;
        let begun = Instant::now();
        let (mut mark, mut since, mut looked) = (self.mark(), begun, begun);
        while !self.is_idle()? {
            let now = Instant::now();
            if self.mark() != mark {
                (mark, since) = (self.mark(), now);
            }
            if now - looked > LOOK {
                looked = now;
                self.look(mark)?;
                // Between exchanges the GPU waits for nobody.
                if mark % 2 == 0 && mark > 0 && now - since > self.ranks.borrow().timeout() {
                    return Err(self.lose(mark, None));
                }
            }
            if now - begun > AWAKE { thread::sleep(NAP) } else { thread::yield_now() }
        }
        self.under_way.set(false);
        Ok(())
    }

    /// Whether both streams are through.
    fn is_idle(&self) -> Result<bool, DeviceError> {
        Ok(self.gpu.is_idle(&self.gpu.stream)? && self.gpu.is_idle(&self.stream)?)
    }

    fn mark(&self) -> usize {
        self.mark.word() as usize
    }

    /// Whether NCCL and the other ranks are well.
    fn look(&self, mark: usize) -> Result<(), DeviceError> {
        for communicator in &self.communicators {
            if let Err(message) = communicator.async_error() {
                return Err(self.lose(mark, Some(message)));
            }
        }
        let (name, _) = &self.named[mark / 2];
        let heard = self.ranks.borrow_mut().look(name);
        heard.map_err(|error| DeviceError::Ranks(Box::new(error)))
    }

    /// Ends all ranks because an exchange is not over within its time, or by NCCL's `message`. Where they are processes this does not
    /// return.
    fn lose(&self, mark: usize, message: Option<String>) -> DeviceError {
        let (name, group) = &self.named[mark / 2];
        let mut ranks = self.ranks.borrow_mut();
        let error = ranks.why_lost(name, group, message);
        self.abort();
        DeviceError::Ranks(Box::new(ranks.lose(error)))
    }

    /// Frees the GPU of kernels that wait for other ranks. By a thread of its own, since an abort may wait as well.
    fn abort(&self) {
        let communicators = self.communicators.clone();
        let (done, ended) = channel();
        let abort = move || {
            communicators.iter().for_each(Communicator::abort);
            let _ = done.send(());
        };
        if thread::Builder::new().name("linc-nccl-abort".into()).spawn(abort).is_ok() {
            let _ = ended.recv_timeout(PATIENCE);
        }
    }
}

impl BoundExchange {
    /// Has the kernels that are queued from now on wait until it is over.
    ///
    /// # Safety
    /// The GPU is that of the exchange, with its context bound.
    pub(super) unsafe fn hold(&self, gpu: &Gpu) -> Result<(), DeviceError> {
        // SAFETY: the stream is of the GPU that the event is of.
        unsafe { self.over.hold(gpu.stream.cu_stream()) }
    }
}

impl Drop for Exchanges {
    /// What frees memory afterwards waits for the GPU, which may wait for ranks that are gone.
    fn drop(&mut self) {
        let begun = Instant::now();
        while self.under_way.get() && !self.is_idle().unwrap_or(true) {
            if begun.elapsed() > PATIENCE {
                self.abort();
                break;
            }
            thread::sleep(NAP);
        }
    }
}

/// Whether so many ranks may have the GPU of this one.
fn may_share(nccl: &Nccl, sharing: usize) -> Result<(), DeviceError> {
    if sharing <= 1 || nccl.shares_gpus() {
        return Ok(());
    }
    let [a, b, c] = nccl.version();
    Err(DeviceError::Unsupported(format!(
        "{} share a GPU, which NCCL {a}.{b}.{c} does not do\n  help: start as many ranks as there are GPUs, or take NCCL 2.30 or later (pip install -U nvidia-nccl-cu13)",
        count(sharing, "rank")
    )))
}

/// Whether ranks may share GPUs, as the environment says.
pub(super) fn ranks_may_share() -> bool {
    let (name, value) = SHARE_VARIABLE;
    env::var(name).is_ok_and(|set| set == value)
}
