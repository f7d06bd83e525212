//! What can happen next: the alphabet of histories.

use std::fmt;

/// An enumeration that knows all of its kinds.
macro_rules! listed {
    ($(#[$of_all:meta])* $all:ident { $($(#[$of_one:meta])* $one:ident,)* }) => {
        $(#[$of_all])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $all { $($(#[$of_one])* $one),* }

        impl $all {
            pub const ALL: &[$all] = &[$($all::$one),*];
        }
    };
}
pub(crate) use listed;

listed! {
    /// What kind of thing happens.
    Kind {
        // Clients.
        Submit, SubmitKeyed, Resend, Stop, StopAll, Restart, Delete, Wait, Report, Batch,
        // The scheduler's processes.
        End, Start, Work,
        // Calls: a call takes effect, an answer is used, an effect comes that nobody waits for any
        // more.
        Effect, Resume, Late,
        // Watches.
        Frame, Poison, Compact,
        // The cluster.
        Sync, WriteStatus, StalePod, Kubelet, Disrupt, Collect, Bump,
        // A person, and what else refuses.
        KubectlDelete, KubectlDeletePod, KubectlDeleteSecret, KubectlSuspend, KubectlResume,
        Guard, Quota,
        Advance,
    }
}

/// One step of a history. `which` chooses among what the kind may happen to, `how` among the ways.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub kind: Kind,
    pub which: u32,
    pub how: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.kind, self.which, self.how)
    }
}

macro_rules! faults {
    ($($name:ident $text:literal)*) => {
        /// What becomes of a call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($name),* }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$name),*];

            pub fn text(self) -> &'static str {
                match self { $(Fault::$name => $text),* }
            }
        }
    };
}

faults! {
    None "done"
    Before500 "500 before"
    Before503 "503 before"
    Before504 "504 before"
    Before429 "429"
    After500 "500 after"
    After503 "503 after"
    After504 "504 after"
    LostAfter "answer lost"
    LostBefore "lost before"
    TimeoutAfter "timeout after"
    TimeoutBefore "timeout before"
    TimeoutLate "timeout, effect late"
    LostLate "lost, effect late"
    Unreachable "unreachable"
    QuotaConflict "409 of quota"
    Rights "403 of rights"
    Garbled "answer garbled"
    OverQuota "403 of quota"
    Expired "410"
}

impl Fault {
    /// Whether the call takes effect at once.
    pub fn is_done(self) -> bool {
        matches!(
            self,
            Fault::None
                | Fault::After500
                | Fault::After503
                | Fault::After504
                | Fault::LostAfter
                | Fault::TimeoutAfter
                | Fault::Garbled
        )
    }

    pub fn is_late(self) -> bool {
        matches!(self, Fault::TimeoutLate | Fault::LostLate)
    }

    /// Whether it can come of a call of this method.
    pub fn fits(self, method: &str, is_list: bool) -> bool {
        match self {
            Fault::QuotaConflict | Fault::OverQuota => method == "POST",
            Fault::Expired => is_list,
            Fault::TimeoutLate | Fault::LostLate => method != "GET",
            _ => true,
        }
    }
}
