use std::sync::Arc;

use inkstone_tensor::{DType, Device, cpu};

use super::*;

#[test]
fn last_temporal_slice_is_taken_tap_by_tap() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    // Element [o, i, t, y, x] has the value o * 10_000 + i * 1_000 + t * 100 + y * 10 + x.
    let mut values = Vec::new();
    for o in 0..2 {
        for i in 0..2 {
            for t in 0..3 {
                for y in 0..3 {
                    for x in 0..3 {
                        values.push(f32::from(
                            i16::try_from(o * 10_000 + i * 1_000 + t * 100 + y * 10 + x).unwrap(),
                        ));
                    }
                }
            }
        }
    }
    let stored = Tensor::from_f32(&device, &values, Shape::new(&[2, 2, 3, 3, 3]).unwrap()).unwrap();
    let matrix =
        tap_major(&stored, ConvShape { c_in: 2, c_out: 2, kernel: 3 }, Order::ChannelsFirst).unwrap();
    let rows = matrix.to_f32().unwrap();
    assert_eq!(matrix.shape(), &Shape::matrix(2, 18));
    assert_eq!(&rows[..6], &[200.0, 1200.0, 201.0, 1201.0, 202.0, 1202.0]);
    assert_eq!(&rows[16..20], &[222.0, 1222.0, 10200.0, 11200.0]);
}

#[test]
fn channels_that_are_last_already_stay_there() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    // Element [o, t, y, x, i] of two outputs and two inputs is its own number.
    let values: Vec<f32> = (0..2 * 27 * 2).map(|i| f32::from(u8::try_from(i).unwrap())).collect();
    let stored = Tensor::from_f32(&device, &values, Shape::new(&[2, 3, 3, 3, 2]).unwrap()).unwrap();
    let shape = ConvShape { c_in: 2, c_out: 2, kernel: 3 };
    let matrix = tap_major(&stored, shape, Order::ChannelsLast).unwrap();
    // The last of three slices of 18 values, of each output.
    assert_eq!(matrix.to_f32().unwrap(), [&values[36..54], &values[90..]].concat());
}

#[test]
fn another_size_is_left_to_the_loader() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let nothing = Tensor::from_f32(&device, &[], Shape::matrix(0, 0)).unwrap();
    let shape = ConvShape { c_in: 1, c_out: 1, kernel: 1 };
    assert!(matches!(tap_major(&nothing, shape, Order::ChannelsFirst), Err(TensorError::Shape { .. })));
    assert!(Kernel::new(shape, nothing, Order::ChannelsLast).weight().is_err());
}

#[test]
fn a_kernel_in_a_file_waits_for_its_first_use() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let path = std::env::temp_dir().join(format!("inkstone-{}-kernel", std::process::id()));
    let values: Vec<u8> = (0..8_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    std::fs::write(&path, values).unwrap();
    let file = Arc::new(inkstone_tensor::MappedFile::open(&path).unwrap());
    let stored = Tensor::from_storage(
        &device,
        Storage::Mapped(file, 0..32),
        DType::F32,
        Shape::new(&[2, 4, 1, 1]).unwrap(),
    )
    .unwrap();
    let kernel =
        Kernel::new(ConvShape { c_in: 4, c_out: 2, kernel: 1 }, stored.clone(), Order::ChannelsFirst);
    assert!(kernel.ready.get().is_none());
    let Weight::Dense(matrix) = &kernel.weight().unwrap().matrix else { panic!("not dense") };
    assert_eq!(matrix.to_f32().unwrap(), stored.to_f32().unwrap());
    assert!(kernel.stored.lock().unwrap().is_none(), "the file is not needed any more");
    std::fs::remove_file(path).unwrap();
}
