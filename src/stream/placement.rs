//! Where an epoch's payloads are decoded: on the CPU or on the GPU, whichever is faster by what either has cost lately.
//!
//! A GPU costs something before it has done anything (copies to be set up, launches, waking up), and then less for each byte. So few bytes are the CPU's, and where
//! the two cross is a matter of the machine: it is measured as epochs go by.

use std::time::Duration;

use tidegate_kernels::device::Device;

/// What a batch costs on a GPU before its first byte, until it is measured.
const USUAL_FIXED: f64 = 300_000.0;
/// Nanoseconds a byte on a GPU until it is measured: that of copying it there.
const USUAL_GPU: f64 = 0.1;
/// Fewer bytes tell nothing of what a byte costs.
const TELLING: usize = 64 << 10;
/// A measurement's weight against those before it.
const WEIGHT: f64 = 0.2;
/// The first batches on a GPU cost more than others will: memory is made, and columns are put there.
const WARM_UP: u32 = 3;
/// After a batch has failed there, so many are the CPU's.
const REST: u32 = 64;
/// One epoch in so many goes where it is not expected to be faster, so that what is known does not grow old.
const PROBES: u32 = 256;

/// What decoding has cost lately, in nanoseconds.
#[derive(Debug)]
pub struct Costs {
    /// For each byte on the CPU; `None`: not measured yet.
    cpu: Option<f64>,
    /// On the GPU: what the smallest batches took,
    fixed: f64,
    /// and what each byte took beyond that.
    gpu: f64,
    /// How many batches were done there,
    done: u32,
    /// and how many it is left alone for.
    rest: u32,
    decided: u32,
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the CPU.
    Cpu,
    /// On the GPU.
    Gpu,
}

impl Default for Costs {
    fn default() -> Self {
        Self { cpu: None, fixed: USUAL_FIXED, gpu: USUAL_GPU, done: 0, rest: 0, decided: 0 }
    }
}

impl Costs {
    /// Where so many bytes are to be decoded.
    pub fn place(&mut self, wish: Device, bytes: usize) -> Place {
        match wish {
            Device::Cpu => return Place::Cpu,
            Device::Gpu => return Place::Gpu,
            Device::Auto => {}
        }
        // What a byte costs on the CPU is known after the first epoch that tells.
        let Some(cpu) = self.cpu.filter(|_| bytes >= TELLING) else { return Place::Cpu };
        if self.rest > 0 {
            self.rest -= 1;
            return Place::Cpu;
        }
        let bytes = bytes as f64;
        let faster = if self.fixed + bytes * self.gpu < bytes * cpu { Place::Gpu } else { Place::Cpu };
        self.decided = self.decided.wrapping_add(1);
        match (faster, self.decided % PROBES) {
            (Place::Cpu, 0) => Place::Gpu,
            (Place::Gpu, 0) => Place::Cpu,
            _ => faster,
        }
    }

    /// A batch failed on the GPU, or there is none.
    pub fn failed(&mut self) {
        self.rest = REST;
    }

    /// So many bytes took so long.
    pub fn took(&mut self, place: Place, bytes: usize, time: Duration) {
        if bytes < TELLING {
            return;
        }
        let (bytes, nanos) = (bytes as f64, time.as_nanos() as f64);
        let towards = |before: f64, now: f64| before + WEIGHT * (now - before);
        match place {
            Place::Cpu => self.cpu = Some(self.cpu.map_or(nanos / bytes, |before| towards(before, nanos / bytes))),
            Place::Gpu => {
                self.done = self.done.saturating_add(1);
                if self.done <= WARM_UP {
                    return;
                }
                // Whatever took less than the fixed part shows that it is less.
                self.fixed = self.fixed.min(nanos);
                let each = (nanos - self.fixed) / bytes;
                self.gpu = if self.done == WARM_UP + 1 { each } else { towards(self.gpu, each) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides for so many bytes, and tells what it took on a machine with these rates.
    fn epoch(costs: &mut Costs, bytes: usize, cpu: f64, (fixed, gpu): (f64, f64)) -> Place {
        let place = costs.place(Device::Auto, bytes);
        let nanos = match place {
            Place::Cpu => bytes as f64 * cpu,
            Place::Gpu => fixed + bytes as f64 * gpu,
        };
        costs.took(place, bytes, Duration::from_nanos(nanos as u64));
        place
    }

    #[test]
    fn a_wish_is_obeyed() {
        let mut costs = Costs::default();
        assert_eq!([Device::Cpu, Device::Gpu].map(|wish| costs.place(wish, 1)), [Place::Cpu, Place::Gpu]);
    }

    #[test]
    fn what_fails_is_left_alone_for_a_while_and_the_first_batches_tell_nothing() {
        let mut costs = Costs::default();
        costs.took(Place::Cpu, 50 << 20, Duration::from_millis(50));
        // Compiling, say.
        (0..WARM_UP).for_each(|_| costs.took(Place::Gpu, 50 << 20, Duration::from_secs(2)));
        assert_eq!(costs.place(Device::Auto, 50 << 20), Place::Gpu);
        costs.failed();
        assert!((0..REST).all(|_| costs.place(Device::Auto, 50 << 20) == Place::Cpu));
        assert_eq!(costs.place(Device::Auto, 50 << 20), Place::Gpu);
        costs.failed();
        assert_eq!(costs.place(Device::Gpu, 1), Place::Gpu, "a wish is obeyed all the same");
    }

    #[test]
    fn it_finds_what_is_faster_at_any_size_and_when_that_changes() {
        let mut costs = Costs::default();
        let machine = (150_000.0, 0.05);
        assert_eq!(epoch(&mut costs, 50 << 20, 1.0, machine), Place::Cpu, "nothing is known of the CPU yet");
        (0..50).for_each(|_| _ = epoch(&mut costs, 50 << 20, 1.0, machine));
        // Break-even lies at some 158 thousand bytes.
        for (bytes, expected) in [(1000, Place::Cpu), (70_000, Place::Cpu), (400_000, Place::Gpu), (50 << 20, Place::Gpu)] {
            let gpu = (0..200).filter(|_| epoch(&mut costs, bytes, 1.0, machine) == expected).count();
            assert!(gpu >= 198, "{bytes}: {gpu}");
        }
        // Others begin to use it.
        let slow = (150_000.0, 3.0);
        let places: Vec<_> = (0..1000).map(|_| epoch(&mut costs, 50 << 20, 1.0, slow)).collect();
        assert!(places[100..].iter().filter(|place| **place == Place::Cpu).count() >= 890);
        // And end to.
        let places: Vec<_> = (0..20_000).map(|_| epoch(&mut costs, 50 << 20, 1.0, machine)).collect();
        assert!(places[19_000..].iter().filter(|place| **place == Place::Gpu).count() >= 990);
    }
}
