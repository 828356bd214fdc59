//! The thread behind the marks socket.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrLike, UnixAddr, UnixCredentials, recvmsg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::keeper::{Keeper, Kept};
use super::message::{MAX_MARK_BYTES, Refusal, Sender, row_of};
use super::rate::RateLimit;
use super::{MarkCounts, MarksReceived};
use crate::agent::error::Result;
use crate::agent::job::{JobIds, JobPlaces};
use crate::clock::Clock;
use crate::store::MarkRow;
use crate::units::NS_PER_MS;

/// The first mark after a silence is flushed at once; in a flood, at most so often.
const FLUSH_DISTANCE_NS: i64 = 5 * NS_PER_MS;
/// How long a silent socket is waited for before the flags are looked at.
const IDLE_NS: i64 = 200 * NS_PER_MS;
/// Datagrams taken in one go, before what they say is written.
const MAX_AT_ONCE: usize = 4_096;
/// How long a process's job is remembered: a pid is not used again that soon.
const JOB_REMEMBERED_NS: i64 = 1_000 * NS_PER_MS;
const MAX_JOBS_REMEMBERED: usize = 1_024;

pub(super) struct Server {
    socket: UnixDatagram,
    keeper: Keeper,
    clock: Arc<dyn Clock>,
    places: JobPlaces,
    counts: Arc<MarkCounts>,
    tap: Option<mpsc::Sender<MarkRow>>,
    rate: RateLimit,
    jobs: HashMap<i32, Option<JobIds>>,
    jobs_forgotten_ns: i64,
    /// Who waits for an answer on the marks that wait to be written.
    to_answer: Vec<SocketAddr>,
}

/// A datagram, and who sent it.
struct Received {
    bytes: usize,
    sender: Option<UnixCredentials>,
    answer_to: Option<SocketAddr>,
}

impl Server {
    pub(super) fn new(
        socket: UnixDatagram,
        keeper: Keeper,
        clock: Arc<dyn Clock>,
        places: JobPlaces,
        counts: Arc<MarkCounts>,
        tap: Option<mpsc::Sender<MarkRow>>,
    ) -> Self {
        let now_ns = clock.now();
        Self {
            socket,
            keeper,
            clock,
            places,
            counts,
            tap,
            rate: RateLimit::new(now_ns),
            jobs: HashMap::new(),
            jobs_forgotten_ns: now_ns,
            to_answer: Vec::new(),
        }
    }

    /// Takes marks until `stop`, and then what had been sent by that time.
    pub(super) fn run(mut self, stop: &AtomicBool, reopen: &AtomicBool) -> Result<MarksReceived> {
        let mut next_flush_ns = self.clock.now();
        loop {
            let is_last = stop.load(Ordering::Acquire);
            let taken = self.take_what_is_there();
            let now_ns = self.clock.now();
            if is_last || now_ns >= next_flush_ns {
                let kept = self.keeper.flush(now_ns);
                self.answer_those_who_wait(kept);
                next_flush_ns = now_ns.saturating_add(FLUSH_DISTANCE_NS);
            }
            if reopen.swap(false, Ordering::AcqRel) {
                self.keeper.reopen(now_ns);
            }
            if is_last && taken == 0 {
                break;
            }
            let wait_ns = if self.to_answer.is_empty() && taken == 0 { IDLE_NS } else { FLUSH_DISTANCE_NS };
            if !is_last {
                self.wait(wait_ns);
            }
        }
        let (rows, files) = self.keeper.finish()?;
        Ok(MarksReceived { rows, files })
    }

    fn wait(&self, wait_ns: i64) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns };
        // Interrupted, timed out or ready: the loop looks again in any case.
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
    }

    fn take_what_is_there(&mut self) -> usize {
        // One byte more than a mark may have shows which are longer.
        let mut buffer = [0; MAX_MARK_BYTES + 1];
        let mut control = cmsg_space!(UnixCredentials);
        for taken in 0..MAX_AT_ONCE {
            let received = match receive(&self.socket, &mut buffer, &mut control) {
                Ok(received) => received,
                // Nothing is left; or the kernel is out of something, and the next round finds out.
                Err(_) => return taken,
            };
            let outcome = match received.sender {
                Some(sender) => self.take(buffer.get(..received.bytes).unwrap_or_default(), sender),
                None => Err(Refusal::Sender),
            };
            self.counts.count(outcome);
            match (outcome, received.answer_to) {
                (_, None) => {}
                (Ok(()), Some(to)) => self.to_answer.push(to),
                (Err(refusal), Some(to)) => self.answer(&to, "refused", Some(refusal)),
            }
        }
        MAX_AT_ONCE
    }

    fn take(&mut self, datagram: &[u8], sender: UnixCredentials) -> std::result::Result<(), Refusal> {
        let now_ns = self.clock.now();
        if !self.rate.allows(sender.uid(), now_ns) {
            return Err(Refusal::Rate);
        }
        if self.keeper.is_full() {
            return Err(Refusal::Storage);
        }
        let sender = Sender { uid: sender.uid(), job: self.job_of(sender.pid(), now_ns) };
        let row = row_of(datagram, &sender, now_ns)?;
        if self.tap.as_ref().is_some_and(|tap| tap.send(row.clone()).is_err()) {
            // Nobody listens any more.
            self.tap = None;
        }
        self.keeper.push(row);
        Ok(())
    }

    fn job_of(&mut self, pid: i32, now_ns: i64) -> Option<JobIds> {
        if now_ns.saturating_sub(self.jobs_forgotten_ns) >= JOB_REMEMBERED_NS || self.jobs.len() >= MAX_JOBS_REMEMBERED
        {
            self.jobs.clear();
            self.jobs_forgotten_ns = now_ns;
        }
        // 0: a process of a pid namespace that we do not see.
        let pid_here = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let places = &self.places;
        self.jobs.entry(pid).or_insert_with(|| JobIds::of_process(places, pid_here)).clone()
    }

    fn answer_those_who_wait(&mut self, kept: Kept) {
        let word = match kept {
            Kept::Written => "recorded",
            Kept::Waiting => "waiting",
        };
        for to in std::mem::take(&mut self.to_answer) {
            self.answer(&to, word, None);
        }
    }

    /// Answers with our own words only. Whoever does not listen gets no answer, and nobody waits for him.
    fn answer(&self, to: &SocketAddr, status: &str, refusal: Option<Refusal>) {
        let text = match refusal {
            Some(refusal) => json!({ "status": status, "reason": refusal, "message": refusal.to_string() }),
            None => json!({ "status": status }),
        };
        let _ = self.socket.send_to_addr(text.to_string().as_bytes(), to);
    }
}

fn receive(socket: &UnixDatagram, buffer: &mut [u8], control: &mut [u8]) -> std::result::Result<Received, Errno> {
    let mut parts = [IoSliceMut::new(buffer)];
    // `control` has room for the credentials and nothing else: descriptors that somebody sends along are dropped by the
    // kernel, which then says that the control data was cut.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(control), flags)?;
    let sender = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|m| if let ControlMessageOwned::ScmCredentials(sender) = m { Some(sender) } else { None })
    });
    // Only abstract addresses: a path may lead elsewhere by the time that it is written to, say to the system's log.
    // Of a sender that is bound to nothing the kernel gives an address of no bytes, whose inside nix must not be asked.
    let named = message.address.as_ref().filter(|address| address.len() as usize > size_of::<u16>());
    let answer_to = named.and_then(UnixAddr::as_abstract);
    let answer_to = answer_to.and_then(|name| SocketAddr::from_abstract_name(name).ok());
    Ok(Received { bytes: message.bytes, sender, answer_to })
}
