//! A simulation of the scheduler in a cluster: histories that mix everything that can happen, and what must hold in them.

mod checks;
mod client;
mod cluster;
mod coroutine;
mod sim;
mod step;
mod world;

use sim::{Options, Sim};
use step::Kind;

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut sim = Sim::new(
        Options {
            cap: 1,
            history: 2,
            ports: true,
            ..Options::default()
        },
        1,
        true,
    );
    sim.settle(5_000_000, false);
    for i in 0..5 {
        sim.submit_new(0, 1, i % 2 == 0);
        sim.settle(5_000_000, false);
    }
    for kind in [
        Kind::Wait,
        Kind::Stop,
        Kind::Restart,
        Kind::Delete,
        Kind::StopAll,
    ] {
        sim.request_on(kind, 1, 0);
        sim.settle(5_000_000, false);
    }
    sim.finish();
    for line in sim.log.iter().flatten() {
        println!("{line}");
    }
}
