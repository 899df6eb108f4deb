//! `system.devices`.

use std::sync::{Arc, atomic::Ordering};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray},
    datatypes::{Schema, SchemaRef},
};
use tidegate_kernels::device::{GpuInfo, GpuStatus, Held, status};

use super::{flag, real, text, whole};
use crate::{decode, device::Devices, error::Result, session::engine::blocking};

/// Columns of `system.devices`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("device"),
        text("name"),
        flag("usable"),
        flag("open"),
        text("note"),
        text("compute_capability"),
        text("driver"),
        whole("memory_bytes"),
        whole("held_bytes"),
        whole("pinned_bytes"),
        whole("batches"),
        whole("rows"),
        whole("bytes_in"),
        whole("left_over"),
        real("copy_in_ms"),
        real("kernel_ms"),
        real("copy_out_ms"),
        real("wait_ms"),
        whole("failed"),
        whole("lost"),
    ]))
}

/// A row.
#[derive(Debug, Default)]
struct Row {
    device: String,
    name: Option<String>,
    usable: bool,
    note: Option<String>,
    info: Option<GpuInfo>,
    /// Whether it is a GPU that is open, and what is held of it.
    open: Option<Held>,
    /// Whether what was done on the GPU was done on this one.
    used: bool,
}

/// Rows of `system.devices`: the CPU, and each GPU, or why there is none.
pub async fn rows() -> Result<Vec<ArrayRef>> {
    // The driver is asked for the first time, perhaps.
    let gpus = blocking(status).await?;
    Ok(columns(&rows_of(gpus, &Devices::get().seen().unwrap_or(Err(String::new())))))
}

fn rows_of(gpus: &GpuStatus, seen: &Result<tidegate_kernels::device::Gpu, String>) -> Vec<Row> {
    let cpu = Row { device: "cpu".into(), usable: true, note: Some(format!("reads JSON with {}", decode::instructions())), ..Row::default() };
    let mut rows = vec![cpu];
    match gpus {
        Err(reason) => rows.push(Row { device: "gpu".into(), note: Some(reason.to_string()), ..Row::default() }),
        Ok(gpus) => rows.extend(gpus.iter().map(|info| {
            let open = seen.as_ref().ok().filter(|gpu| gpu.ordinal() == info.ordinal);
            let closed = seen.as_ref().err().filter(|reason| !reason.is_empty()).cloned();
            Row {
                device: format!("gpu {}", info.ordinal),
                name: Some(info.name.clone()),
                usable: info.memory_free.is_ok(),
                note: info.memory_free.as_ref().err().map(ToString::to_string).or(closed),
                info: Some(info.clone()),
                open: open.map(|gpu| gpu.held()),
                used: open.is_some() || gpus.len() == 1,
            }
        })),
    }
    rows
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let totals = &Devices::get().totals;
    let count = |total: &std::sync::atomic::AtomicU64| -> ArrayRef {
        let total = total.load(Ordering::Relaxed) as i64;
        Arc::new(rows.iter().map(|row| row.used.then_some(total)).collect::<Int64Array>())
    };
    let time = |total: &std::sync::atomic::AtomicU64| -> ArrayRef {
        let total = total.load(Ordering::Relaxed) as f64 / 1e6;
        Arc::new(rows.iter().map(|row| row.used.then_some(total)).collect::<Float64Array>())
    };
    let held = |of: fn(&Held) -> usize| -> ArrayRef { Arc::new(rows.iter().map(|row| row.open.as_ref().map(|held| of(held) as i64)).collect::<Int64Array>()) };
    let told = |of: &dyn Fn(&GpuInfo) -> String| -> ArrayRef { Arc::new(rows.iter().map(|row| row.info.as_ref().map(of)).collect::<StringArray>()) };
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.device))),
        Arc::new(rows.iter().map(|row| row.name.clone()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(row.usable)).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| Some(row.device == "cpu" || row.open.is_some())).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.note.clone()).collect::<StringArray>()),
        told(&|info| format!("{}.{}", info.compute_capability.0, info.compute_capability.1)),
        told(&|info| format!("CUDA {}.{}{}", info.driver_version.0, info.driver_version.1, if info.has_nvrtc { ", NVRTC" } else { "" })),
        Arc::new(rows.iter().map(|row| row.info.as_ref().map(|info| info.memory_total as i64)).collect::<Int64Array>()),
        held(|held| held.device_bytes),
        held(|held| held.host_bytes),
        count(&totals.batches),
        count(&totals.rows),
        count(&totals.bytes),
        count(&totals.left_over),
        time(&totals.copy_in_ns),
        time(&totals.compute_ns),
        time(&totals.copy_out_ns),
        time(&totals.wait_ns),
        count(&totals.failed),
        count(&totals.lost),
    ]
}
