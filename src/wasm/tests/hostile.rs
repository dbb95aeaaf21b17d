//! Every function with every kind of wrong argument.

use super::script::{self, MEMORY_BYTES, Memory, Step, argument};
use super::*;
use crate::wasm::stream::Way;

/// 0, 1, the largest, the last byte, the one behind it, and the last place of a number and of a wide one.
const VALUES: [u32; 7] = [0, 1, u32::MAX, MEMORY_BYTES - 1, MEMORY_BYTES, MEMORY_BYTES - 4, MEMORY_BYTES - 8];

fn limits() -> Limits {
    Limits { time_max: Duration::from_millis(200), start_time_max: Duration::from_secs(60), ..Limits::default() }
}

/// Follows the script in each kind of callback in turn: when the context begins, with a head, a body, the head of an answer, its
/// body, and at the end. Whether it came to its end each time.
fn run(program: &Arc<Program>, script: &[u8]) -> Result<(), Failure> {
    (0..6).try_for_each(|skipped| pass(program, &[&[Step::Return as u8, 0].repeat(skipped), script].concat()))
}

/// Passes an exchange by a plugin with this script.
fn pass(program: &Arc<Program>, script: &[u8]) -> Result<(), Failure> {
    let plugin = started(program, "script", script, limits()).unwrap();
    let mut stream = Stream::open(&plugin)?;
    let (mut head, context) = (RequestBuf::new(Method::POST, "/a?b"), context());
    stream.head(Head::Request, false, &mut View::of_request(&mut head, &context))?;
    let mut view = View::behind_request(&head, &context);
    stream.body(Way::Request, Bytes::from_static(b"name=value"), true, &mut view)?;
    let mut response = ResponseBuf::new(StatusCode::OK);
    let view = View::behind_request(&head, &context);
    stream.head(Head::Response, false, &mut view.with_response(Access::Change(&mut response)))?;
    let mut view = View::behind_request(&head, &context).with_response(Access::Read(&response));
    stream.body(Way::Response, Bytes::from_static(b"answer"), true, &mut view)?;
    stream.finish(Some(&mut View::behind_request(&head, &context)));
    // At the end it can only fail by itself.
    if plugin.instances() == 1 { Ok(()) } else { Err(Failure::Ended) }
}

fn call(number: usize, arguments: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let arguments = arguments.into_iter().flat_map(argument);
    std::iter::once(u8::try_from(number).unwrap()).chain(arguments).collect()
}

/// Functions that do nothing wrong with any of these arguments: they name no place, or nothing is there to look at.
fn takes_anything(function: &Function) -> bool {
    let name = function.name.as_str();
    ["sched_yield", "environ_get", "args_get", "proxy_set_tick_period_milliseconds"].contains(&name)
}

#[test]
fn no_function_can_be_led_out_of_the_memory() {
    let functions = functions().unwrap();
    assert!(functions.len() > 50 && functions.len() <= usize::from(script::FIRST));
    let program = program(&script::guest(&functions));
    for (number, function) in functions.iter().enumerate() {
        let count = function.wide.len();
        for base in VALUES {
            let mut script = Vec::new();
            for value in VALUES {
                for place in 0..count {
                    let arguments = (0..count).map(|at| if at == place { value } else { base });
                    script.extend(call(number, arguments));
                }
            }
            if function.name == "proc_exit" {
                assert!(matches!(run(&program, &script), Err(Failure::Trap(_))), "it is ended");
            } else {
                assert_eq!(run(&program, &script), Ok(()), "{} with {base}", function.name);
            }
        }
        if count > 1 && function.returns && !takes_anything(function) {
            let wrong = [call(number, vec![u32::MAX; count]), vec![Step::Refused as u8]].concat();
            assert_eq!(run(&program, &wrong), Ok(()), "{} is refused", function.name);
        }
    }
}

#[test]
fn functions_can_be_called_while_memory_is_asked_for() {
    let functions = functions().unwrap();
    let program = program(&script::guest(&functions));
    let number = |name: &str| functions.iter().position(|function| function.name == name).unwrap();
    let get = call(number("proxy_get_header_map_value"), [0, 0, 3, 1024, 1028]);
    let path = call(number("proxy_get_property"), [4, 11, 1024, 1028]);
    for (number, function) in functions.iter().enumerate() {
        let inner = call(number, vec![0; function.wide.len()]);
        let script = [&[Step::Memory as u8, Memory::Steps as u8], &*path, &inner, &get, &path, &inner].concat();
        let done = run(&program, &script);
        assert!(done.is_ok() || function.name == "proc_exit", "{}: {done:?}", function.name);
    }
    // The memory moves while it is asked for, and what is written lies in the new one.
    let grow = [Step::Grow as u8, 100];
    let write = [&[Step::Write as u8][..], &argument(2000), &argument(7)].concat();
    for inner in [&grow[..], &write] {
        let script = [&[Step::Memory as u8, Memory::Steps as u8], &*path, inner, &[Step::Done as u8]].concat();
        assert_eq!(run(&program, &script), Ok(()), "{inner:?}");
    }
    for (memory, refused) in
        [(Memory::Sound, false), (Memory::None, true), (Memory::Beyond, true), (Memory::Last, true)]
    {
        let expected = if refused { Step::Refused } else { Step::Done };
        let script = [&[Step::Memory as u8, memory as u8], &*path, &[expected as u8]].concat();
        assert_eq!(run(&program, &script), Ok(()), "{memory:?}");
    }
    for memory in [Memory::Traps, Memory::Hangs] {
        assert!(run(&program, &[&[Step::Memory as u8, memory as u8], &*path].concat()).is_err(), "{memory:?}");
    }
}

/// The fuzz target `plugin` looks further; this keeps its plugin and its invariant in step with the functions.
#[test]
fn whatever_a_plugin_does_it_is_well_or_ended() {
    let functions = functions().unwrap();
    let program = program(&script::guest(&functions));
    // A linear congruential generator: the same scripts every time.
    let mut state = 4711_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    for _ in 0..300 {
        let script: Vec<u8> = (0..400).map(|_| random()).filter(|byte| *byte != Memory::Hangs as u8).collect();
        let _ = pass(&program, &script);
    }
}
