//! Commands of the appliance's own beside DPDK's, on the socket that `dpdk-telemetry.py` connects to.
//!
//! DPDK asks on a thread of its own, one for each client. An answer is made of what its closure returns, and cut to what a reply of DPDK
//! may hold: 256 fields, 512 items of a list, 127 bytes of a text, 16 kB of JSON.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::eal::Eal;
use crate::error::{Error, reason};

/// Bytes of a text that DPDK keeps, without the closing NUL.
const LONGEST: usize = dpdk_sys::RTE_TEL_MAX_STRING_LEN as usize - 1;

/// A value of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An object. Names are made of ASCII letters, digits and `_`: DPDK has no others, any other character becomes `_`.
    Fields(Vec<(String, Field)>),
    /// A list of texts.
    Texts(Vec<String>),
}

type Answering = Box<dyn Fn(&str, &str) -> Answer + Send + Sync>;

/// DPDK's callback has no place for a pointer of ours, and is never unregistered.
static ANSWERING: OnceLock<Answering> = OnceLock::new();

impl Eal {
    /// Has telemetry answer these commands, each with a line about it, by what `answer` makes of the command and its parameter (empty
    /// without one). Once in a process. It is called on threads of DPDK's and must not wait for long; one that panics answers null.
    pub fn answer_telemetry(
        &self,
        commands: &[(&CStr, &CStr)],
        answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let failed = |command: &CStr, reason: String| Error::Telemetry {
            command: command.to_string_lossy().into_owned(),
            reason,
        };
        if ANSWERING.set(Box::new(answer)).is_err() {
            return Err(failed(c"telemetry", "its commands are registered already".to_owned()));
        }
        for (command, help) in commands {
            // SAFETY: both are C strings, which the call copies, and `asked` stays for ever.
            let status =
                unsafe { dpdk_sys::rte_telemetry_register_cmd(command.as_ptr(), Some(asked), help.as_ptr()) };
            if status != 0 {
                return Err(failed(command, reason("", -status)));
            }
        }
        Ok(())
    }
}

/// What DPDK calls for each of the commands.
unsafe extern "C" fn asked(
    command: *const c_char,
    parameter: *const c_char,
    data: *mut dpdk_sys::rte_tel_data,
) -> c_int {
    let text = |text: *const c_char| {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: DPDK hands over C strings that live during the call, where it hands over any.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let answer = || -> Option<Answer> { Some(ANSWERING.get()?(&text(command), &text(parameter))) };
    match catch_unwind(AssertUnwindSafe(answer)) {
        // SAFETY: `data` is DPDK's own, for this call.
        Ok(Some(answer)) => unsafe { fill(data, &answer) },
        Ok(None) => -1,
        Err(panic) => {
            drop_quietly(panic);
            -1
        }
    }
}

/// Nothing unwinds into DPDK, not even the drop of what was thrown.
fn drop_quietly(panic: Box<dyn Any + Send>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
}

/// # Safety
///
/// `data` is what DPDK handed over for the answer.
unsafe fn fill(data: *mut dpdk_sys::rte_tel_data, answer: &Answer) -> c_int {
    // SAFETY: as above. Names and texts are C strings, which the calls copy; what they have no room for they leave out. A container that
    // was taken is DPDK's, which frees it; any other is ours.
    unsafe {
        let fields = match answer {
            Answer::Texts(texts) => return list(data, texts),
            Answer::Fields(fields) => fields,
        };
        if dpdk_sys::rte_tel_data_start_dict(data) != 0 {
            return -1;
        }
        for (name, field) in fields {
            let name = text_of(&named(name));
            match field {
                Field::Number(number) => {
                    dpdk_sys::rte_tel_data_add_dict_u64(data, name.as_ptr(), *number);
                }
                Field::Text(text) => {
                    dpdk_sys::rte_tel_data_add_dict_string(data, name.as_ptr(), text_of(text).as_ptr());
                }
                Field::Texts(texts) => {
                    let container = dpdk_sys::rte_tel_data_alloc();
                    let is_taken = !container.is_null()
                        && list(container, texts) == 0
                        && dpdk_sys::rte_tel_data_add_dict_container(data, name.as_ptr(), container, 0) == 0;
                    if !is_taken && !container.is_null() {
                        dpdk_sys::rte_tel_data_free(container);
                    }
                }
            }
        }
    }
    0
}

/// # Safety
///
/// `data` is what DPDK handed over or allocated.
unsafe fn list(data: *mut dpdk_sys::rte_tel_data, texts: &[String]) -> c_int {
    // SAFETY: as above; texts are C strings, which the calls copy.
    unsafe {
        if dpdk_sys::rte_tel_data_start_array(data, dpdk_sys::RTE_TEL_STRING_VAL) != 0 {
            return -1;
        }
        for text in texts {
            dpdk_sys::rte_tel_data_add_array_string(data, text_of(text).as_ptr());
        }
    }
    0
}

/// A name as DPDK takes it.
fn named(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// A text as DPDK keeps it: cut between two characters, without control characters.
fn text_of(text: &str) -> CString {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // There is no NUL left.
    CString::new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_names_are_what_dpdk_takes() {
        assert_eq!(text_of("a \"cable\"\n\0").as_bytes(), b"a \"cable\"  ");
        let long = text_of(&format!("{}ü", "x".repeat(126)));
        assert_eq!(long.as_bytes(), "x".repeat(126).as_bytes());
        assert_eq!(text_of(&"x".repeat(200)).as_bytes().len(), 127);
        assert_eq!(named("no-rule"), "no_rule");
    }
}
