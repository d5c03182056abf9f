//! Operations that move rows, views, and memory that is used again.

use std::sync::Arc;

use inkstone_tensor::{DType, Error, Pool, Weight, ops};

use crate::host::{ACTIVATIONS, Host, LAYOUTS, Layout, device, devices};

#[test]
fn embedding_picks_rows() {
    for device in devices() {
        for stored in [DType::F32, DType::Bf16, DType::F16] {
            for layout in LAYOUTS {
                let table = Host::random(1, 7, 19, stored);
                let weight = Weight::Dense(table.tensor(&device, layout));
                let got = ops::embedding(&weight, &[6, 0, 3, 3], DType::F32).unwrap();
                let want: Vec<f32> =
                    [6, 0, 3, 3].iter().flat_map(|r| table.values[r * 19..][..19].to_vec()).collect();
                assert_eq!(got.to_f32().unwrap(), want, "{}", device.name());
            }
        }
    }
}

#[test]
fn embedding_refuses_an_id_beyond_the_table() {
    let device = devices().pop().unwrap();
    let table = Weight::Dense(Host::random(1, 7, 4, DType::F32).tensor(&device, Layout::Plain));
    assert!(matches!(ops::embedding(&table, &[1, 7], DType::F32), Err(Error::Range { .. })));
}

#[test]
fn concat_puts_rows_below_each_other() {
    for device in devices() {
        for dtype in ACTIVATIONS {
            let parts =
                [Host::random(1, 2, 9, dtype), Host::random(2, 0, 9, dtype), Host::random(3, 3, 9, dtype)];
            let tensors: Vec<_> = parts.iter().map(|p| p.tensor(&device, Layout::View)).collect();
            let got = ops::concat_rows(&tensors.iter().collect::<Vec<_>>()).unwrap();
            let want: Vec<f32> = parts.iter().flat_map(|p| p.values.clone()).collect();
            assert_eq!(got.to_f32().unwrap(), want);
        }
    }
}

#[test]
fn an_empty_view_beyond_the_last_row_has_no_bytes() {
    let device = devices().pop().unwrap();
    let x = Host::random(1, 2, 8, DType::F32).tensor(&device, Layout::Plain);
    let view = x.cols_range(3..5).unwrap().rows_range(2..2).unwrap();
    assert_eq!(view.to_bytes(), []);
}

#[test]
fn unknown_and_missing_instruction_sets_are_refused() {
    use inkstone_tensor::{Device, cpu::Options};
    let missing = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for isa in ["sse9", "", missing] {
        let made = Device::cpu(&Options { threads: Some(1), isa: Some(isa.into()) });
        assert!(matches!(made, Err(Error::Device { .. })), "{isa}");
    }
    assert!(matches!(Device::cpu(&Options { threads: Some(0), isa: None }), Err(Error::Device { .. })));
    assert_eq!(device(Some("scalar".into()), 3).name(), "cpu (scalar, 3 threads)");
}

#[test]
fn a_dropped_buffer_is_used_again() {
    let pool = Arc::new(Pool::default());
    let first = pool.take(1000).unwrap();
    let place = first.as_slice().as_ptr();
    drop(first);
    assert_eq!(pool.free_bytes(), 1024);
    let again = pool.take(1010).unwrap(); // the same capacity: both round up to 1024
    assert_eq!(again.as_slice().as_ptr(), place);
    assert_eq!(pool.free_bytes(), 0);
}
