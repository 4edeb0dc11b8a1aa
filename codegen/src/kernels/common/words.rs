//! A buffer seen as words of another width.
use cubecl::frontend::slice::{SliceExpand, from_raw_parts};
use cubecl::ir::dialect::general::ReinterpretCastOp;
use cubecl::ir::pliron::r#type::Typed;
use cubecl::ir::pliron::value::Value;
use cubecl::ir::types::{PointerType, RuntimeArrayType};
use cubecl::prelude::*;

/// The same memory as elements of another type, from the first byte on.
///
/// The slice must be a whole buffer.
pub(crate) fn view<T: CubePrimitive, U: CubePrimitive>(_: &[T]) -> &[U] {
    cubecl::unexpanded!()
}

/// What the macro calls in place of [`view`].
pub(crate) mod view {
    use super::*;

    pub(crate) fn expand<'a, T: CubePrimitive, U: CubePrimitive>(
        scope: &Scope,
        slice: &'a SliceExpand<T>,
    ) -> &'a SliceExpand<U> {
        let list = slice.__extract_list(scope);
        scope.create_kernel_ref(whole(scope, list))
    }

    /// A buffer as elements of another type.
    pub(super) fn whole<U: CubePrimitive>(scope: &Scope, list: Value) -> SliceExpand<U> {
        let PointerType { address_space, .. } =
            *list.get_type(scope.ctx()).deref(scope.ctx()).downcast_ref().expect("a buffer");
        let array = RuntimeArrayType::get(scope.ctx(), U::__expand_as_type(scope)).into();
        let pointer = PointerType::get(scope.ctx(), array, address_space).into();
        let cast = ReinterpretCastOp::new(scope.ctx_mut(), pointer, list);
        let list = scope.register_with_result(&cast);
        let (from, to) = (0usize.into_expand(scope), usize::MAX.into_expand(scope));
        from_raw_parts(scope, list, from, to)
    }
}

/// The same to be written.
pub(crate) fn view_mut<T: CubePrimitive, U: CubePrimitive>(_: &mut [T]) -> &mut [U] {
    cubecl::unexpanded!()
}

/// What the macro calls in place of [`view_mut`].
pub(crate) mod view_mut {
    use super::*;

    pub(crate) fn expand<'a, T: CubePrimitive, U: CubePrimitive>(
        scope: &Scope,
        slice: &'a mut SliceExpand<T>,
    ) -> &'a mut SliceExpand<U> {
        let list = slice.__extract_list(scope);
        scope.create_kernel_ref(view::whole(scope, list))
    }
}

/// As 16-bit words.
#[cube]
pub(crate) fn halves(words: &[u32]) -> &[u16] {
    view::<u32, u16>(words)
}

/// As bytes.
#[cube]
pub(crate) fn bytes(words: &[u32]) -> &[u8] {
    view::<u32, u8>(words)
}

/// As pairs of words.
#[cube]
pub(crate) fn pairs(words: &[u32]) -> &[Vector<u32, Const<2>>] {
    view::<u32, Vector<u32, Const<2>>>(words)
}

/// As groups of four words.
#[cube]
pub(crate) fn quads(words: &[u32]) -> &[Vector<u32, Const<4>>] {
    view::<u32, Vector<u32, Const<4>>>(words)
}

/// As single words, from groups of four.
#[cube]
pub(crate) fn singles(quads: &[Vector<u32, Const<4>>]) -> &[u32] {
    view::<Vector<u32, Const<4>>, u32>(quads)
}

/// Byte `byte` of a buffer.
#[cube]
pub(crate) fn byte_at(words: &[u32], byte: usize) -> u32 {
    (words[byte / 4] >> (8u32 * u32::cast_from(byte % 4))) & 0xffu32
}

/// The 16 bits from the even byte `byte` on.
#[cube]
pub(crate) fn half_at(words: &[u32], byte: usize) -> u32 {
    (words[byte / 4] >> (8u32 * u32::cast_from(byte % 4))) & 0xffffu32
}

/// `n` words from byte `byte` on, wherever that lies. No word is read that holds none of their bytes.
#[cube]
pub(crate) fn words_at(words: &[u32], byte: usize, #[comptime] n: u32) -> Array<u32> {
    let shift = 8u32 * u32::cast_from(byte % 4);
    let first = byte / 4;
    let last = (byte + comptime!(4 * n as usize - 1)) / 4;
    let mut out = Array::<u32>::new(comptime!(n as usize));
    let mut low = words[first];
    #[unroll]
    for i in 0..comptime!(n as usize) {
        let mut next = first + comptime!(i + 1);
        if comptime!(i as u32 + 1 == n) {
            next = last;
        }
        let high = words[next];
        // Of a word that begins where it should, nothing comes from the next.
        out[i] = (low >> shift) | ((high << 1u32) << (31u32 - shift));
        low = high;
    }
    out
}
