//! Who may start, and what is taken meanwhile: reserved CPU and memory of the machine, first come, first served among
//! jobs of the same priority. Pure.

use crate::config::{Quantity, Settings};
use crate::job::{JobName, Queued};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What a job that says nothing of CPU is taken to need, unless there is less: one CPU, so that no more such jobs run at
/// once than the machine has CPUs.
const CPU_OF_A_SILENT_JOB: u64 = 1000;

/// An amount of CPU and of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

/// A job asks for more than there is, so that it could never start.
#[derive(Debug, PartialEq)]
pub struct NeverFits {
    need: Amount,
    capacity: Amount,
}

/// The place of a waiting job in the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// From 1.
    pub position: usize,
    need: Amount,
    free: Amount,
    capacity: Amount,
}

/// The reservations and the queue for them.
///
/// Invariants: the sum of what is reserved never exceeds the capacity; a job is in the queue or has a reservation, never
/// both; nothing overtakes the head of the queue, so that a large job is not starved by small ones.
pub struct Admission {
    capacity: Amount,
    free: Amount,
    reserved: HashMap<JobName, Amount>,
    queue: BTreeMap<Queued, (JobName, Amount)>,
}

impl Amount {
    /// What a job needs: what it requests, or else what it is limited to, as in Kubernetes.
    pub fn of(settings: &Settings, capacity: Amount) -> Amount {
        let asked = |name: &str| {
            let resources = settings.resources.as_ref()?;
            let asked = resources.requests.get(name);
            asked.or_else(|| resources.limits.get(name))
        };
        Amount {
            cpu_milli: asked("cpu").map_or(CPU_OF_A_SILENT_JOB.min(capacity.cpu_milli), cpu_milli),
            memory: asked("memory").map_or(0, bytes),
        }
    }

    fn fits(self, into: Amount) -> bool {
        self.cpu_milli <= into.cpu_milli && self.memory <= into.memory
    }

    fn minus(self, other: Amount) -> Amount {
        Amount {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    fn plus(self, other: Amount) -> Amount {
        Amount {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}

/// Thousandths of a CPU that a quantity of CPUs is.
pub fn cpu_milli(quantity: &Quantity) -> u64 {
    u64::try_from(quantity.milli).unwrap_or(u64::MAX)
}

/// Bytes that a quantity of memory is, rounded up.
pub fn bytes(quantity: &Quantity) -> u64 {
    let whole = quantity.milli / 1000 + i128::from(quantity.milli % 1000 > 0);
    u64::try_from(whole).unwrap_or(u64::MAX)
}

impl Admission {
    pub fn new(capacity: Amount) -> Admission {
        Admission {
            capacity,
            free: capacity,
            reserved: HashMap::new(),
            queue: BTreeMap::new(),
        }
    }

    pub fn capacity(&self) -> Amount {
        self.capacity
    }

    /// Whether a job of this need could ever start.
    pub fn check(&self, need: Amount) -> Result<(), NeverFits> {
        match need.fits(self.capacity) {
            true => Ok(()),
            false => Err(NeverFits {
                need,
                capacity: self.capacity,
            }),
        }
    }

    /// Reserves for a job that has just come, if nothing waits and there is room.
    pub fn start_at_once(&mut self, name: &JobName, need: Amount) -> bool {
        let may = self.queue.is_empty() && need.fits(self.free);
        if may {
            self.reserve(name.clone(), need);
        }
        may
    }

    /// Queues a job, and gives its place. One that has waited before comes back to the place it had.
    pub fn wait(&mut self, queued: Queued, name: JobName, need: Amount) -> Place {
        self.queue.insert(queued, (name, need));
        self.place_behind(self.queue.range(..queued).count(), need)
    }

    /// Reserves for the first of the queue, if there is room, and hands it out.
    pub fn next(&mut self) -> Option<JobName> {
        let first = self.queue.first_entry()?;
        if !first.get().1.fits(self.free) {
            return None;
        }
        let (name, need) = first.remove();
        self.reserve(name.clone(), need);
        Some(name)
    }

    /// Gives back what the job has reserved.
    pub fn release(&mut self, name: &JobName) {
        if let Some(need) = self.reserved.remove(name) {
            self.free = self.free.plus(need);
        }
    }

    /// Takes a job out of the queue. Whether it was in it.
    pub fn withdraw(&mut self, queued: Queued) -> bool {
        self.queue.remove(&queued).is_some()
    }

    /// The queue, first to last.
    pub fn places(&self) -> impl Iterator<Item = (&JobName, Place)> {
        self.queue
            .values()
            .enumerate()
            .map(|(ahead, (name, need))| (name, self.place_behind(ahead, *need)))
    }

    fn place_behind(&self, ahead: usize, need: Amount) -> Place {
        Place {
            position: ahead + 1,
            need,
            free: self.free,
            capacity: self.capacity,
        }
    }

    fn reserve(&mut self, name: JobName, need: Amount) {
        // One that was stopped and restarted while it was about to start has one.
        self.release(&name);
        self.free = self.free.minus(need);
        self.reserved.insert(name, need);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (need, free, capacity) = (self.need, self.free, self.capacity);
        write!(
            f,
            "position {} of the queue: needs {} CPU, {} of {} free",
            self.position,
            Cpus(need.cpu_milli),
            Cpus(free.cpu_milli),
            Cpus(capacity.cpu_milli)
        )?;
        if need.memory > 0 {
            write!(
                f,
                "; needs {} of memory, {} of {} free",
                Bytes(need.memory),
                Bytes(free.memory),
                Bytes(capacity.memory)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for NeverFits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (need, capacity) = (self.need, self.capacity);
        let mut separator = "";
        if need.cpu_milli > capacity.cpu_milli {
            write!(
                f,
                "resources.requests.cpu: {} CPU is more than the {} that there is",
                Cpus(need.cpu_milli),
                Cpus(capacity.cpu_milli)
            )?;
            separator = "; ";
        }
        if need.memory > capacity.memory {
            write!(
                f,
                "{separator}resources.requests.memory: {} is more than the {} that there is",
                Bytes(need.memory),
                Bytes(capacity.memory)
            )?;
        }
        f.write_str(": request less, or start the scheduler with more (--cpus, --memory)")
    }
}

/// Thousandths of a CPU, shown as CPUs.
pub struct Cpus(pub u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, milli) => {
                let text = format!("{whole}.{milli:03}");
                f.write_str(text.trim_end_matches('0'))
            }
        }
    }
}

/// Bytes, shown in the largest binary unit that leaves at least one.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
        for (size, unit) in units {
            if self.0 >= size {
                let tenths = u128::from(self.0) * 10 / size as u128;
                return match tenths % 10 {
                    0 => write!(f, "{}{unit}", tenths / 10),
                    tenth => write!(f, "{}.{tenth}{unit}", tenths / 10),
                };
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Resources;

    fn name(text: &str) -> JobName {
        JobName::parse(text).unwrap()
    }

    fn cpu(cpus: u64) -> Amount {
        Amount {
            cpu_milli: cpus * 1000,
            memory: 0,
        }
    }

    fn queued(priority: i8, arrival: u64) -> Queued {
        Queued { priority, arrival }
    }

    /// Plays events on a machine of 4 CPUs and gives what starts: `a3` is a job a that needs 3 CPUs and comes, in capitals
    /// with a higher priority, `-a` ends, `~a` is withdrawn.
    fn play(events: &str) -> String {
        let mut admission = Admission::new(cpu(4));
        let mut arrivals = HashMap::new();
        let mut started = Vec::new();
        for (arrival, event) in (0..).zip(events.split_whitespace()) {
            let (kind, rest) = event.split_at(1);
            match kind {
                "-" => admission.release(&name(rest)),
                "~" => assert!(admission.withdraw(arrivals[rest])),
                job => {
                    let need = cpu(rest.parse().unwrap());
                    assert_eq!(admission.check(need), Ok(()));
                    let is_urgent = job == job.to_uppercase();
                    let queued = queued(i8::from(is_urgent), arrival);
                    arrivals.insert(job, queued);
                    let name = name(&job.to_lowercase());
                    if admission.start_at_once(&name, need) {
                        started.push(name);
                    } else {
                        admission.wait(queued, name, need);
                    }
                }
            }
            started.extend(std::iter::from_fn(|| admission.next()));
            let reserved: u64 = admission.reserved.values().map(|a| a.cpu_milli).sum();
            assert_eq!(reserved + admission.free.cpu_milli, 4000, "{events}");
        }
        let started: Vec<_> = started.iter().map(JobName::as_str).collect();
        started.join("")
    }

    #[test]
    fn jobs_start_in_order_of_arrival_as_far_as_there_is_room() {
        let check = |events: &str, expected: &str| assert_eq!(play(events), expected, "{events}");
        check("a1 b1 c1 d1", "abcd");
        check("a4 b1", "a");
        check("a4 b1 -a", "ab");
        // Small jobs do not overtake a large one, however well they would fit.
        check("a2 b4 c1 d1", "a");
        check("a2 b4 c1 d1 -a", "ab");
        check("a2 b4 c1 d1 -a -b", "abcd");
        // One that is withdrawn lets those behind it go.
        check("a2 b4 c1 d1 ~b", "acd");
        check("a4 b3 c2 -a", "ab");
        check("a4 b3 c2 -a -b", "abc");
        // A higher priority goes before those that wait, and takes nothing from those that run.
        check("a4 b1 C4 -a", "ac");
        check("a4 b1 C4 D1 -a -c", "acdb");
        // One that needs nothing waits its turn as well.
        check("a4 b1 c0", "a");
        // What is given back twice counts once.
        check("a4 b4 -a -a", "ab");
    }

    #[test]
    fn a_waiting_job_is_told_its_place_and_why() {
        let mut admission = Admission::new(Amount {
            cpu_milli: 4000,
            memory: 8 << 30,
        });
        assert!(admission.start_at_once(&name("a"), cpu(3)));
        let need = Amount {
            cpu_milli: 1500,
            memory: 3 << 29,
        };
        admission.wait(queued(0, 1), name("b"), need);
        admission.wait(queued(0, 2), name("c"), cpu(1));
        let places: Vec<_> = admission
            .places()
            .map(|(name, place)| format!("{name}: {place}"))
            .collect();
        assert_eq!(
            places,
            [
                "b: position 1 of the queue: needs 1.5 CPU, 1 of 4 free; needs 1.5Gi of memory, 8Gi of 8Gi free",
                "c: position 2 of the queue: needs 1 CPU, 1 of 4 free"
            ]
        );
        assert_eq!(
            admission.wait(queued(1, 3), name("d"), cpu(1)).to_string(),
            "position 1 of the queue: needs 1 CPU, 1 of 4 free"
        );
    }

    #[test]
    fn a_job_that_can_never_fit_is_told_how_much_there_is() {
        let admission = Admission::new(Amount {
            cpu_milli: 2000,
            memory: 1 << 30,
        });
        let check = |cpu_milli, memory, expected: &str| {
            let refused = admission.check(Amount { cpu_milli, memory }).unwrap_err();
            let (text, fix) = (
                refused.to_string(),
                ": request less, or start the scheduler with more (--cpus, --memory)",
            );
            assert_eq!(text.strip_suffix(fix), Some(expected));
        };
        check(
            2500,
            0,
            "resources.requests.cpu: 2.5 CPU is more than the 2 that there is",
        );
        check(
            0,
            3 << 30,
            "resources.requests.memory: 3Gi is more than the 1Gi that there is",
        );
        check(
            9000,
            5 << 29,
            "resources.requests.cpu: 9 CPU is more than the 2 that there is; resources.requests.memory: 2.5Gi is more \
             than the 1Gi that there is",
        );
    }

    #[test]
    fn a_job_needs_what_it_requests_or_else_its_limit_or_else_one_cpu() {
        let check = |requests: &[(&str, &str)], limits: &[(&str, &str)], cpu_milli, memory| {
            let list = |list: &[(&str, &str)]| {
                list.iter()
                    .map(|(name, text)| (name.to_string(), text.parse().unwrap()))
                    .collect()
            };
            let settings = Settings {
                resources: Some(Resources {
                    requests: list(requests),
                    limits: list(limits),
                }),
                ..Settings::default()
            };
            assert_eq!(
                Amount::of(&settings, cpu(4)),
                Amount { cpu_milli, memory },
                "{requests:?} {limits:?}"
            );
        };
        check(&[("cpu", "250m"), ("memory", "1Ki")], &[], 250, 1024);
        check(&[("cpu", "250m")], &[("cpu", "2")], 250, 0);
        check(&[], &[("cpu", "2"), ("memory", "0.5")], 2000, 1);
        check(&[("nvidia.com/gpu", "1")], &[], 1000, 0);
        check(&[("cpu", "0")], &[], 0, 0);
        assert_eq!(
            Amount::of(&Settings::default(), cpu(0)),
            Amount::default(),
            "no more than there is"
        );
    }

    #[test]
    fn amounts_are_shown_as_they_would_be_written() {
        for (milli, text) in [(0, "0"), (50, "0.05"), (1000, "1"), (2500, "2.5")] {
            assert_eq!(Cpus(milli).to_string(), text);
        }
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1536 << 10, "1.5Mi"),
            (23 << 30, "23Gi"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
