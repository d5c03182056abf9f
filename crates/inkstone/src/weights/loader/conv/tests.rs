use std::sync::Arc;

use inkstone_tensor::{DType, Device, cpu, f16};

use super::*;

/// As torch has it, sums in f32.
fn stored(tensor: &Tensor) -> Stored {
    Stored { tensor: tensor.clone(), order: Order::ChannelsFirst, sums: DType::F32 }
}

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
    let tensor = Tensor::from_f32(&device, &values, Shape::new(&[2, 2, 3, 3, 3]).unwrap()).unwrap();
    let file = Stored { sums: DType::Bf16, ..stored(&tensor) };
    let matrix = tap_major(&file, ConvShape { c_in: 2, c_out: 2, kernel: 3 }).unwrap();
    assert_eq!(matrix.dtype(), DType::F32, "as stored: nothing is a sum");
    let rows = matrix.to_f32().unwrap();
    assert_eq!(matrix.shape(), &Shape::matrix(2, 18));
    assert_eq!(&rows[..6], &[200.0, 1200.0, 201.0, 1201.0, 202.0, 1202.0]);
    assert_eq!(&rows[16..20], &[222.0, 1222.0, 10200.0, 11200.0]);
}

/// A kernel of the taps 1, 2, 4, .. 256, so that a sum tells its terms, and one without any.
#[test]
fn taps_that_see_the_same_pixel_are_added() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let taps: Vec<f32> = (0..9).map(|tap| f32::from(1_u16 << tap)).chain([0.0; 9]).collect();
    let want = [
        [1. + 2. + 8. + 16., 4. + 32., 64. + 128., 256.], // the first output of a pair, down and across
        [1. + 8., 2. + 4. + 16. + 32., 64., 128. + 256.], // the second across
        [1. + 2., 4., 8. + 16. + 64. + 128., 32. + 256.], // the second down
        [1., 2. + 4., 8. + 64., 16. + 32. + 128. + 256.], // the second both ways
    ];
    let want: Vec<f32> = want.iter().flat_map(|taps| taps.iter().copied().chain([0.0; 4])).collect();
    let f32s = Tensor::from_f32(&device, &taps, Shape::new(&[2, 1, 3, 3]).unwrap()).unwrap();
    let shape = ConvShape { c_in: 1, c_out: 2, kernel: ConvWeight::DOUBLING };
    let f16s = taps.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect::<Vec<u8>>();
    let mut buffer = AlignedBuffer::zeroed(f16s.len()).unwrap();
    buffer.as_mut_slice().copy_from_slice(&f16s);
    let f16s = Tensor::from_storage(&device, Storage::Owned(buffer), DType::F16, *f32s.shape()).unwrap();
    let bf16s = inkstone_tensor::ops::convert(&f32s, DType::Bf16).unwrap();
    for (tensor, sums) in [&f32s, &f16s, &bf16s].into_iter().flat_map(|t| [(t, DType::F32), (t, DType::Bf16)])
    {
        let matrix = tap_major(&Stored { sums, ..stored(tensor) }, shape).unwrap();
        assert_eq!((matrix.shape(), matrix.dtype()), (&Shape::matrix(8, 4), sums));
        assert_eq!(matrix.to_f32().unwrap(), want, "{} {sums}", tensor.dtype());
    }
}

/// 1 + 3 / 256 lies in the middle of two bf16 and goes to the even one, 1 + 4 / 256. Rounded after each addition it would
/// stay 1.
#[test]
fn a_sum_of_taps_is_rounded_once() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let small = 1.0 / 256.0;
    let taps = [1.0, small, 0.0, small, small, 0.0, 0.0, 0.0, 0.0];
    let tensor = Tensor::from_f32(&device, &taps, Shape::new(&[1, 1, 3, 3]).unwrap()).unwrap();
    let shape = ConvShape { c_in: 1, c_out: 1, kernel: ConvWeight::DOUBLING };
    let first = |sums| tap_major(&Stored { sums, ..stored(&tensor) }, shape).unwrap().to_f32().unwrap()[0];
    assert_eq!([first(DType::F32), first(DType::Bf16)], [1.0 + 3.0 * small, 1.0 + 4.0 * small]);
}

#[test]
fn channels_that_are_last_already_stay_there() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    // Element [o, t, y, x, i] of two outputs and two inputs is its own number.
    let values: Vec<f32> = (0..2 * 27 * 2).map(|i| f32::from(u8::try_from(i).unwrap())).collect();
    let tensor = Tensor::from_f32(&device, &values, Shape::new(&[2, 3, 3, 3, 2]).unwrap()).unwrap();
    let shape = ConvShape { c_in: 2, c_out: 2, kernel: 3 };
    let matrix = tap_major(&Stored { order: Order::ChannelsLast, ..stored(&tensor) }, shape).unwrap();
    // The last of three slices of 18 values, of each output.
    assert_eq!(matrix.to_f32().unwrap(), [&values[36..54], &values[90..]].concat());
}

#[test]
fn another_size_is_left_to_the_loader() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let nothing = Tensor::from_f32(&device, &[], Shape::matrix(0, 0)).unwrap();
    let shape = ConvShape { c_in: 1, c_out: 1, kernel: 1 };
    assert!(matches!(tap_major(&stored(&nothing), shape), Err(TensorError::Shape { .. })));
    assert!(Kernel::new(shape, stored(&nothing)).weight().is_err());
}

#[test]
fn a_kernel_in_a_file_waits_for_its_first_use() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let path = std::env::temp_dir().join(format!("inkstone-{}-kernel", std::process::id()));
    let values: Vec<u8> = (0..8_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    std::fs::write(&path, values).unwrap();
    let file = Arc::new(inkstone_tensor::MappedFile::open(&path).unwrap());
    let tensor = Tensor::from_storage(
        &device,
        Storage::Mapped(file, 0..32),
        DType::F32,
        Shape::new(&[2, 4, 1, 1]).unwrap(),
    )
    .unwrap();
    let kernel = Kernel::new(ConvShape { c_in: 4, c_out: 2, kernel: 1 }, stored(&tensor));
    assert!(kernel.ready.get().is_none());
    let Weight::Dense(matrix) = &kernel.weight().unwrap().matrix else { panic!("not dense") };
    assert_eq!(matrix.to_f32().unwrap(), tensor.to_f32().unwrap());
    assert!(kernel.stored.lock().unwrap().is_none(), "the file is not needed any more");
    std::fs::remove_file(path).unwrap();
}
