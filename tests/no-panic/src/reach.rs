//! Reaching a function: its address goes to somebody unknown, who could call it with anything.

/// Reaches the functions of types. `Type: a, b::<T>, c = shim;` reaches `Type::a`, `Type::b::<T>`, and `Type::c` by `shim`,
/// which is for functions whose arguments or results are not named: it calls them with what it is given.
macro_rules! reach {
    ($name:ident; $($type:ty: $($function:ident $(::<$($generic:ty),+>)? $(= $shim:path)?),+;)*) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {
            $($(core::hint::black_box(address!($type, $function $(::<$($generic),+>)? $(= $shim)?));)+)*
        }
    };
}

#[cfg_attr(
    all(feature = "firmware", not(feature = "recovery")),
    allow(unused_macros, reason = "firmware needs no traits")
)]
/// Reaches the functions of traits. `Trait for Type: a, b;` reaches `a` and `b` of what `Type` has for `Trait`.
macro_rules! reach_traits {
    ($name:ident; $($trait:ident for $type:ty: $($function:ident $(::<$generic:literal>)? $(= $shim:path)?),+;)*) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {
            $($(core::hint::black_box(trait_address!($trait, $type, $function $(::<$generic>)? $(= $shim)?));)+)*
        }
    };
}

macro_rules! address {
    ($type:ty, $function:ident = $shim:path) => {
        $shim as *const ()
    };
    ($type:ty, $function:ident $(::<$($generic:ty),+>)?) => {
        <$type>::$function $(::<$($generic),+>)? as *const ()
    };
}

#[cfg_attr(
    all(feature = "firmware", not(feature = "recovery")),
    allow(unused_macros, reason = "firmware needs no traits")
)]
macro_rules! trait_address {
    ($trait:ident, $type:ty, $function:ident = $shim:path) => {
        $shim as *const ()
    };
    ($trait:ident, $type:ty, $function:ident $(::<$generic:literal>)?) => {
        <$type as $trait>::$function $(::<$generic>)? as *const ()
    };
}
