//! What else acts in a cluster, a step at a time: the job controller, a kubelet, the garbage
//! collector, and a person with kubectl.

use crate::coroutine::{EPOCH, mix};
use crate::world::{
    Condition, Container, EARLIER_SUSPENSION, Job, JobStatus, Phase, Pod, STOPPED, StatusWrite,
    Uid, Who, World,
};
use job_scheduler::job::Timestamp;

/// What a pod of a job that was told to end exits with.
const TERMINATED: i32 = 143;

fn set(status: &mut JobStatus, kind: &'static str, met: bool, reason: &'static str, now: i64) {
    match status.conditions.iter_mut().find(|c| c.kind == kind) {
        Some(condition) if condition.met == met => {}
        Some(condition) => {
            (condition.met, condition.reason, condition.since) = (met, reason, now);
        }
        None => status.conditions.push(Condition {
            kind,
            met,
            reason,
            since: now,
        }),
    }
}

/// Whether the job controller has noticed that the job is suspended, since it was last let run.
pub fn has_noticed_suspension(job: &Job) -> bool {
    let mut conditions = job.status.conditions.iter();
    let suspended = conditions.find(|c| c.kind == "Suspended" && c.met);
    let earlier = job.annotations.get(EARLIER_SUSPENSION);
    let earlier = earlier.and_then(|text| Timestamp::parse(text));
    suspended.is_some_and(|c| Some(Timestamp::at(c.since)) != earlier)
}

/// What its container exited with, or nothing that a rule could be about.
fn exit_code(pod: &Pod) -> i32 {
    match pod.container {
        Container::Ended { code, .. } => code,
        _ => 0,
    }
}

/// What the podFailurePolicy says of a failed pod: the first rule that matches.
fn action<'a>(job: &'a Job, pod: &Pod) -> &'a str {
    let code = i64::from(exit_code(pod));
    let matches =
        |in_values: bool, values: &[i64]| code != 0 && values.contains(&code) == in_values;
    let mut rules = job.rules.iter();
    let rule = rules.find(|rule| matches(rule.is_in, &rule.values));
    rule.map_or("Count", |rule| &rule.action)
}

impl World {
    /// The job controller looks at a job: it makes or deletes pods at once, and is to write what it
    /// saw.
    pub fn sync_job(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).cloned() else {
            return;
        };
        if job.is_managed || self.writes.iter().any(|write| write.uid == job.uid) {
            return;
        }
        // One job is looked at by one worker at a time, whose view does not get older again.
        self.stale.retain(|stale| stale.job.uid != job.uid);
        let (status, counted) = self.new_status(&job);
        let is_done = job.status.is_finished() || job.deletion.is_some();
        let is_ending = status.met("FailureTarget") || status.met("SuccessCriteriaMet");
        let pods: Vec<Pod> = self.pods_of(job.uid).cloned().collect();
        let live = || pods.iter().filter(|pod| pod.may_run());
        if job.suspend || is_ending || is_done {
            for pod in live().filter(|pod| pod.deletion.is_none()) {
                // Pods that end because their job is suspended do not count.
                if job.suspend && !is_ending {
                    self.clear_finalizer(pod.uid);
                }
                self.end_pod(&pod.name);
            }
        } else if live().next().is_none() {
            self.make_pod(&job);
        }
        let mut status = status;
        self.count(&job, &mut status);
        self.writes.push(StatusWrite {
            uid: job.uid,
            based_on: job.version,
            status,
            counted,
        });
    }

    /// The status that follows from a job and its pods, and the pods that are counted in it for the
    /// first time.
    fn new_status(&self, job: &Job) -> (JobStatus, Vec<Uid>) {
        let now = self.seconds();
        let mut status = job.status.clone();
        let fresh = self
            .pods_of(job.uid)
            .filter(|pod| pod.finalizer && !pod.may_run());
        let mut counted = Vec::new();
        let mut fails_job = false;
        for pod in fresh {
            counted.push(pod.uid);
            match (pod.phase, action(job, pod)) {
                (Phase::Succeeded, _) => status.succeeded += 1,
                (_, "Ignore") => {}
                (_, action) => {
                    status.failed += 1;
                    fails_job |= action == "FailJob";
                }
            }
        }
        if status.is_finished() {
            return (status, counted);
        }
        let is_ending = status.met("FailureTarget") || status.met("SuccessCriteriaMet");
        let live = self.pods_of(job.uid).any(Pod::may_run);
        if !is_ending && fails_job {
            set(&mut status, "FailureTarget", true, "PodFailurePolicy", now);
        } else if !is_ending && status.failed > job.backoff_limit {
            set(
                &mut status,
                "FailureTarget",
                true,
                "BackoffLimitExceeded",
                now,
            );
        } else if !is_ending && status.succeeded > 0 {
            set(
                &mut status,
                "SuccessCriteriaMet",
                true,
                "CompletionsReached",
                now,
            );
        } else if !is_ending && job.suspend {
            set(&mut status, "Suspended", true, "JobSuspended", now);
            status.start = None;
        } else if !is_ending {
            if status.met("Suspended") {
                set(&mut status, "Suspended", false, "JobResumed", now);
                status.start = Some(now);
            }
            status.start = status.start.or(Some(now));
        }
        if status.met("FailureTarget") && !live {
            let reason = status.conditions.iter().find(|c| c.kind == "FailureTarget");
            let reason = reason.map_or("", |c| c.reason);
            set(&mut status, "Failed", true, reason, now);
        }
        if status.met("SuccessCriteriaMet") && !live {
            set(&mut status, "Complete", true, "CompletionsReached", now);
            status.completion = status.completion.or(Some(now));
        }
        (status, counted)
    }

    fn count(&self, job: &Job, status: &mut JobStatus) {
        let live = || self.pods_of(job.uid).filter(|pod| pod.may_run());
        let count = |ending: bool| {
            let pods = live().filter(|pod| pod.deletion.is_some() == ending);
            u32::try_from(pods.count()).unwrap_or(u32::MAX)
        };
        (status.active, status.terminating) = (count(false), count(true));
    }

    /// The job controller writes a status. One of an older version of the job is refused, and it
    /// looks again.
    pub fn write_status(&mut self, at: usize) {
        if at >= self.writes.len() {
            return;
        }
        let write = self.writes.remove(at);
        let Some(job) = self.job_of(write.uid).cloned() else {
            return;
        };
        if job.version != write.based_on {
            return;
        }
        for uid in write.counted {
            self.clear_finalizer(uid);
        }
        if is_same(&job.status, &write.status) {
            return;
        }
        let mut job = job;
        job.status = write.status;
        self.note_status(&job);
        self.store_job(job, "MODIFIED");
    }

    pub fn note_status(&mut self, job: &Job) {
        let is_stopped = job.suspend
            && job.annotations.contains_key(STOPPED)
            && has_noticed_suspension(job)
            && job.status.active + job.status.terminating == 0;
        let outcome = match (
            job.status.met("Complete"),
            job.status.met("Failed"),
            is_stopped,
        ) {
            (true, ..) => Some("Succeeded"),
            (_, true, _) => Some("Failed"),
            (_, _, true) => Some("Stopped"),
            _ => None,
        };
        let condition = match outcome {
            Some("Succeeded") => "Complete",
            Some("Failed") => "Failed",
            _ => "Suspended",
        };
        let since = job.status.conditions.iter().find(|c| c.kind == condition);
        let since = since.map_or(0, |c| c.since).saturating_sub_unsigned(EPOCH);
        let since = u64::try_from(since).unwrap_or(0) * 1_000_000;
        if let Some(life) = self.lives.get_mut(&job.uid)
            && outcome != life.outcome
        {
            life.outcome = outcome;
            let since = match outcome {
                Some("Stopped") => since.max(life.stopped_at.unwrap_or(0)),
                _ => since,
            };
            life.ended = outcome.map(|_| since);
        }
    }

    fn clear_finalizer(&mut self, uid: Uid) {
        let found = self
            .pods
            .values()
            .find(|pod| pod.uid == uid && pod.finalizer);
        let Some(mut pod) = found.cloned() else {
            return;
        };
        pod.finalizer = false;
        match pod.deletion.is_some() && !pod.may_run() {
            true => self.store_pod(pod, "DELETED"),
            false => self.store_pod(pod, "MODIFIED"),
        }
    }

    /// The jobs that the job controller has something to do for.
    pub fn wanting(&self) -> Vec<String> {
        let wanting = self.jobs.values().filter(|job| self.wants_sync(job));
        wanting.map(|job| job.name.clone()).collect()
    }

    fn wants_sync(&self, job: &Job) -> bool {
        if job.is_managed || self.writes.iter().any(|write| write.uid == job.uid) {
            return false;
        }
        let (mut status, counted) = self.new_status(job);
        self.count(job, &mut status);
        let is_done = job.status.is_finished() || job.deletion.is_some();
        let is_ending = status.met("FailureTarget") || status.met("SuccessCriteriaMet");
        let mut live = self.pods_of(job.uid).filter(|pod| pod.may_run());
        let pods_differ = match job.suspend || is_ending || is_done {
            true => live.any(|pod| pod.deletion.is_none()),
            false => live.next().is_none(),
        };
        pods_differ || !counted.is_empty() || !is_same(&job.status, &status)
    }

    /// The job controller makes a pod for a job that it still believes to be there, or not
    /// suspended.
    pub fn make_stale_pod(&mut self, at: usize) {
        if at >= self.stale.len() {
            return;
        }
        let stale = self.stale.remove(at);
        let has_pod = self.pods_of(stale.job.uid).any(Pod::may_run);
        // A pod whose end decides is counted before another is made, also by one who does not know
        // yet that the job is gone.
        let life = self.lives.get(&stale.job.uid);
        let is_decided = life.is_some_and(|life| life.coming.is_some());
        let uncounted = self.pods_of(stale.job.uid).filter(|pod| pod.finalizer);
        let decides = |pod: &Pod| match pod.container {
            Container::Ended { code, .. } => self.becomes(&stale.job, pod, code).is_some(),
            _ => false,
        };
        let is_coming = uncounted.into_iter().any(decides);
        let may_be_made = stale.until >= self.now && !stale.job.is_managed;
        if may_be_made && !has_pod && !is_decided && !is_coming {
            self.make_pod(&stale.job);
        }
    }

    /// Pods of jobs that are gone are let go by the job controller.
    pub fn release_orphan(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name) else {
            return;
        };
        let (uid, owner) = (pod.uid, pod.owner);
        if pod.finalizer && self.job_of(owner).is_none() {
            // It has seen that the job is gone.
            self.stale.retain(|stale| stale.job.uid != owner);
            self.clear_finalizer(uid);
        }
    }

    /// A pod is to end: it is in deletion until its container has, and for as long as a finalizer
    /// is there.
    pub fn end_pod(&mut self, name: &str) {
        let Some(mut pod) = self.pods.get(name).cloned() else {
            return;
        };
        if pod.deletion.is_some() {
            return;
        }
        pod.deletion = Some(self.now);
        match !pod.may_run() && !pod.finalizer {
            true => self.store_pod(pod, "DELETED"),
            false => self.store_pod(pod, "MODIFIED"),
        }
    }

    /// The kubelet's next step with a pod, if it has one; `choice` says how a container ends.
    pub fn kubelet(&mut self, name: &str, choice: u32) -> bool {
        let Some(mut pod) = self.pods.get(name).cloned() else {
            return false;
        };
        let now = self.seconds();
        match (pod.phase, pod.container, pod.deletion.is_some()) {
            (Phase::Succeeded | Phase::Failed, _, true) if !pod.finalizer => {
                self.store_pod(pod, "DELETED");
                return true;
            }
            (Phase::Succeeded | Phase::Failed, ..) => return false,
            (Phase::Pending, _, true) => pod.phase = Phase::Failed,
            (Phase::Pending, state, false) => {
                let has_payload = pod
                    .mounts
                    .as_ref()
                    .is_none_or(|s| self.secrets.contains_key(s));
                pod.taken = pod.taken.or(Some(now));
                match (has_payload, state) {
                    (true, _) => {
                        pod.phase = Phase::Running;
                        pod.container = Container::Running { since: now };
                        self.note_start(&pod);
                    }
                    (false, Container::Unknown) => pod.container = Container::Creating,
                    (false, _) => return false,
                }
            }
            (Phase::Running, Container::Running { since }, ending) => {
                let code = match (choice % 4, ending) {
                    (0, true) | (0 | 1, false) => 0,
                    (_, true) => TERMINATED,
                    (2, false) => 1,
                    (_, false) => 42,
                };
                self.end_container(&mut pod, since, code);
            }
            (Phase::Running, Container::Ended { .. }, _) if pod.is_out_of_time => {
                (pod.phase, pod.reason) = (Phase::Failed, "DeadlineExceeded");
            }
            (Phase::Running, Container::Ended { code: 0, .. }, _) => pod.phase = Phase::Succeeded,
            (Phase::Running, ..) => pod.phase = Phase::Failed,
        }
        self.store_pod(pod, "MODIFIED");
        true
    }

    /// Ends a pod that cannot start, as its time limit does.
    pub fn time_out(&mut self, name: &str) {
        let Some(mut pod) = self.pods.get(name).cloned() else {
            return;
        };
        if pod.may_run() {
            pod.phase = Phase::Failed;
            pod.reason = "DeadlineExceeded";
            self.store_pod(pod, "MODIFIED");
        }
    }

    fn end_container(&mut self, pod: &mut Pod, since: i64, code: i32) {
        let at = self.seconds();
        pod.container = Container::Ended { since, at, code };
        // One that ends because its job is suspended does not count.
        let coming = self.coming(pod, code).filter(|_| pod.finalizer);
        let now = self.now;
        if let Some(life) = self.lives.get_mut(&pod.owner) {
            life.exited = Some(now);
            life.coming = coming;
        }
    }

    /// What becomes of a job by the end of this container, if nothing comes between.
    fn coming(&self, pod: &Pod, code: i32) -> Option<&'static str> {
        self.becomes(self.job_of(pod.owner)?, pod, code)
    }

    fn becomes(&self, job: &Job, pod: &Pod, code: i32) -> Option<&'static str> {
        if code == 0 && !pod.is_out_of_time {
            return Some("Succeeded");
        }
        let others = self.pods_of(pod.owner).filter(|other| other.uid != pod.uid);
        let uncounted = others.filter(|other| other.finalizer && !other.may_run());
        let uncounted = uncounted
            .filter(|other| action(job, other) == "Count")
            .count();
        let failures = job.status.failed as usize + uncounted + 1;
        match action(job, pod) {
            "FailJob" => Some("Failed"),
            "Count" if failures > job.backoff_limit as usize => Some("Failed"),
            _ => None,
        }
    }

    /// What happens to pods that nobody asked for: one is preempted, is evicted, or comes to its
    /// time limit, well or not. Returns whether it did.
    pub fn disrupt(&mut self, name: &str, how: u32) -> bool {
        let Some(mut pod) = self.pods.get(name).cloned() else {
            return false;
        };
        let runs = match pod.container {
            Container::Running { since } if pod.phase == Phase::Running => Some(since),
            _ => None,
        };
        match (how % 4, runs) {
            (0, _) if pod.may_run() && pod.deletion.is_none() => {
                pod.is_disrupted = true;
                self.store_pod(pod, "MODIFIED");
                self.end_pod(name);
            }
            (1, Some(since)) => {
                self.end_container(&mut pod, since, 137);
                (pod.phase, pod.reason, pod.is_disrupted) = (Phase::Failed, "Evicted", true);
                self.store_pod(pod, "MODIFIED");
            }
            (2 | 3, Some(since)) => {
                let limit = pod
                    .taken
                    .zip(pod.time_limit)
                    .map(|(taken, limit)| taken + limit);
                if limit.is_none_or(|limit| limit > self.seconds()) {
                    return false;
                }
                let code = if how % 4 == 2 { 0 } else { TERMINATED };
                pod.is_out_of_time = true;
                self.end_container(&mut pod, since, code);
                self.store_pod(pod, "MODIFIED");
            }
            _ => return false,
        }
        true
    }

    fn note_start(&mut self, pod: &Pod) {
        let saw = pod.mounts.as_ref().and_then(|name| self.secrets.get(name));
        let saw = saw.and_then(|secret| secret.data.get(&pod.mount_key).cloned());
        let now = self.now;
        if let Some(life) = self.lives.get_mut(&pod.owner) {
            life.ran = life.ran.or(Some(now));
            life.saw = life.saw.take().or(saw);
        }
    }

    /// Whether a running container could end now.
    pub fn may_end(pod: &Pod) -> bool {
        pod.phase == Phase::Running && matches!(pod.container, Container::Running { .. })
    }

    /// Objects whose owner is gone.
    pub fn orphans(&self) -> Vec<(&'static str, String)> {
        let alive: Vec<Uid> = self.jobs.values().map(|job| job.uid).collect();
        let gone = |owner: &Uid| !alive.contains(owner);
        let mut found = Vec::new();
        for (name, pod) in &self.pods {
            let job = self.jobs.get(&pod.job);
            let in_deletion = job.is_some_and(|job| job.deletion.is_some() && !self.finalizers);
            if (gone(&pod.owner) || in_deletion) && pod.deletion.is_none() {
                found.push(("pod", name.clone()));
            } else if gone(&pod.owner) && pod.finalizer {
                found.push(("finalizer", name.clone()));
            }
        }
        let secrets = self
            .secrets
            .iter()
            .filter(|(_, secret)| gone(&secret.owner));
        found.extend(secrets.map(|(name, _)| ("secret", name.clone())));
        let services = self.services.iter().filter(|(_, owner)| gone(owner));
        found.extend(services.map(|(name, _)| ("service", name.clone())));
        let may_go = |job: &Job| self.finalizers || self.pods_of(job.uid).next().is_none();
        let ending = self.jobs.values();
        let ending = ending.filter(|job| job.deletion.is_some() && may_go(job));
        found.extend(ending.map(|job| ("job", job.name.clone())));
        let members = self.jobs.values();
        let members = members.filter(|job| job.owner.as_ref().is_some_and(gone));
        found.extend(members.map(|job| ("member", job.name.clone())));
        found
    }

    /// The garbage collector, and the job controller where it takes part, removes an orphan.
    pub fn collect(&mut self, kind: &str, name: &str) {
        match kind {
            "pod" => self.end_pod(name),
            "finalizer" => self.release_orphan(name),
            "secret" => drop(self.secrets.remove(name)),
            "service" => drop(self.services.remove(name)),
            "member" => {
                let owner = self.jobs.get(name).and_then(|job| job.owner);
                let life = owner.and_then(|owner| self.lives.get(&owner));
                let who = life.and_then(|life| life.gone).map(|(_, who)| who);
                self.remove_job(name, who.unwrap_or(Who::Scheduler));
            }
            _ => self.remove_job(name, Who::Kubectl),
        }
    }

    /// `kubectl delete job`, in the foreground or not.
    pub fn kubectl_delete(&mut self, name: &str, foreground: bool) {
        match foreground || self.finalizers {
            true => self.begin_deletion(name, Who::Kubectl),
            false => self.remove_job(name, Who::Kubectl),
        }
    }

    pub fn kubectl_suspend(&mut self, name: &str, suspend: bool) {
        let Some(mut job) = self.jobs.get(name).cloned() else {
            return;
        };
        if job.suspend == suspend {
            return;
        }
        if suspend {
            self.remember_stale(&job);
        }
        job.suspend = suspend;
        job.touched = true;
        job.runs_by_hand = !suspend;
        let now = self.now;
        if let Some(life) = self.lives.get_mut(&job.uid) {
            life.touched = true;
            let stopped = life.last_end().or(life.stopped_at);
            if let Some(end) = stopped.filter(|_| life.stopped && !suspend) {
                life.ended_before = Some((end, now));
            }
        }
        if !suspend {
            let uid = job.uid;
            self.pods
                .values_mut()
                .filter(|p| p.owner == uid)
                .for_each(|p| p.excused = true);
        }
        self.store_job(job, "MODIFIED");
    }

    pub fn kubectl_delete_secret(&mut self, name: &str) {
        if self.secrets.remove(name).is_some() {
            self.robbed.push(name.to_string());
        }
    }

    /// How the container of a pod ends when nothing else decides: some well, some not.
    pub fn fate(&self, pod: &Pod) -> u32 {
        match self.all_well {
            true => 1,
            false => (mix(pod.uid) % 4) as u32,
        }
    }
}

fn is_same(a: &JobStatus, b: &JobStatus) -> bool {
    let conditions = |status: &JobStatus| -> Vec<(&'static str, bool)> {
        status.conditions.iter().map(|c| (c.kind, c.met)).collect()
    };
    (a.active, a.terminating, a.failed, a.succeeded)
        == (b.active, b.terminating, b.failed, b.succeeded)
        && a.start.is_some() == b.start.is_some()
        && conditions(a) == conditions(b)
}
