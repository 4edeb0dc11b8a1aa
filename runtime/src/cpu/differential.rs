//! The kernel of a node against the `eval` of its op, bit for bit, for any order of tasks.
use super::SharedFrame;
use super::case::{Case, aligned, bytes_of, run_alone};
use super::op::{OpKernel, Site, launch};
use crate::memory::rows_of;
use crate::pool::Pool;
use ds4_ir::view::{Frame, Out, StateMut};
use ds4_ir::{Real, Type};

impl Case {
    /// The bytes that `eval` gives.
    fn expected(&self) -> Vec<u8> {
        self.with(|site, operands, consumed| {
            let (scalar, dims) = self.out(site.ty);
            let (rows, width) = rows_of(&dims);
            let mut bytes = aligned(rows * scalar.row_bytes(width), 0);
            if let Some((buffer, _)) = consumed {
                bytes.bytes_mut()[..rows * scalar.row_bytes(width)].copy_from_slice(&bytes_of(buffer));
            }
            let data = crate::memory::data_mut(scalar, bytes.bytes_mut(), rows, width);
            let out = match site.ty {
                Type::Tensor(_) => Out::Tensor { scalar, dims: &dims, data },
                Type::State(ty) => Out::State(StateMut { ty: *ty, capacity: rows, data }),
                Type::Param(_) => unreachable!("refused above"),
            };
            let mut frame = Frame { operands, out, bind: &self.bind, scratch: &mut [] };
            <f32 as Real>::eval_of(site.op)(&mut frame);
            bytes.bytes()[..rows * scalar.row_bytes(width)].to_vec()
        })
    }

    /// The kernel of the op gives the bits of `eval`, in any order of tasks and on threads.
    pub(super) fn check(&self) {
        self.check_kernel(&|site| super::kernel(site));
    }

    /// As [`Self::check`] for a kernel that `make` makes.
    pub(super) fn check_kernel(&self, make: &dyn Fn(&Site<'_>) -> Box<dyn OpKernel>) {
        let expected = self.expected();
        let same = |got: Vec<u8>, how: &str| {
            let differs = expected.iter().zip(&got).position(|(e, g)| e != g);
            assert!(
                differs.is_none() && got.len() == expected.len(),
                "{}: byte {differs:?} {how}",
                self.func
            );
        };
        let alone = |backwards: bool| {
            move |kernel: &dyn OpKernel, f: &SharedFrame<'_>| {
                run_alone(kernel, f, &mut aligned(kernel.worker_bytes(), 0xff), backwards);
            }
        };
        same(self.got(make, 1, &alone(false)), "in order");
        same(self.got(make, 7, &alone(true)), "backwards");
        let on_threads = |kernel: &dyn OpKernel, f: &SharedFrame<'_>| {
            let pool = Pool::new(3, kernel.worker_bytes()).expect("threads");
            launch(kernel, f, &mut pool.turn());
        };
        same(self.got(make, 3, &on_threads), "on three threads");
    }
}
