//! A few of the cases for a counter of instructions: everything is set up, and then one function
//! plays frames and nothing else.

use engine::Reason;

use super::established_rig;
use crate::memory::{Load, Pool, shuffled};
use crate::rig::{Rig, compile, counted, shard_config};
use crate::world::{Kind, Shape, World};

/// What is counted: `scripts/count-instructions`.
pub const COUNTED: &[&str] = &[
    "established:1",
    "established:10000",
    "v6:1000",
    "vlan:1000",
    "vxlan:1000",
    "denied:50",
    "denied:1000",
    "new:1000",
];

/// Fewer NICs than usual: setting up is what takes long under a counter.
const WORLD: World = World { nics: 100, ..World::USUAL };

/// Sets the case up and plays `frames` frames a side in [`counted`]; how many frames that were.
pub fn count(name: &str, frames: usize) -> Result<u64, String> {
    let unknown = || format!("{name}: not counted; counted are {}", COUNTED.join(", "));
    let (case, number) = name.split_once(':').ok_or_else(unknown)?;
    let n: u32 = number.parse().map_err(|_| unknown())?;
    Ok(match case {
        "established" => established(&WORLD, n, frames),
        "v6" => established(&World { shape: Shape::V6, ..WORLD }, n, frames),
        "vlan" => established(&World { shape: Shape::Vlan, ..WORLD }, n, frames),
        "vxlan" => established(&World { shape: Shape::Vxlan, ..WORLD }, n, frames),
        "denied" => {
            let world = World { rules: n, ..WORLD };
            let mut rig = Rig::with(compile(&world.policy()), shard_config(1024));
            one_side(&mut rig, &world.denied(frames as u32), Reason::NoRule)
        }
        "new" => {
            let mut rig = established_rig(&WORLD, n, 2 * (n + frames as u32));
            one_side(&mut rig, &WORLD.frames(Kind::Syn, n, frames as u32), Reason::New)
        }
        _ => return Err(unknown()),
    })
}

fn established(world: &World, flows: u32, frames: usize) -> u64 {
    let mut rig = established_rig(world, flows, (2 * flows).max(1024));
    let [inside, outside] = [Kind::Answer, Kind::Question].map(|kind| world.frames(kind, 0, flows));
    let orders = [1, 2].map(|seed| shuffled(0..flows, seed));
    let loads = [(&inside, &orders[0]), (&outside, &orders[1])];
    let [inside, outside] = loads.map(|(pool, order)| Some(Load { pool, order }));
    let frames = counted(&mut rig, inside, outside, frames).frames;
    assert_eq!(
        rig.count(Reason::Established),
        frames + u64::from(2 * flows),
        "those of the handshakes and all of these"
    );
    frames
}

fn one_side(rig: &mut Rig, pool: &Pool, reason: Reason) -> u64 {
    let order = shuffled(0..pool.len() as u32, 1);
    let before = rig.count(reason);
    let frames = counted(rig, None, Some(Load { pool, order: &order }), order.len()).frames;
    assert_eq!(rig.count(reason) - before, frames);
    frames
}
