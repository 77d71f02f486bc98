use super::*;

/// The names of the programs, `?` for one that may be any.
fn names(line: &str) -> Vec<String> {
    let read = read(line.as_bytes());
    let programs = read.programs.iter();
    programs
        .map(|program| program.path.as_deref().unwrap_or("?").to_owned())
        .collect()
}

fn whole(line: &str) -> String {
    names(line).join(" ")
}

#[test]
fn every_command_of_a_line_is_one_of_its_programs() {
    for (line, programs) in [
        ("ls -l /tmp", "ls"),
        ("", ""),
        ("   # rm -rf /", ""),
        ("X=1", ""),
        ("a; b && c || d & e | f |& g", "a b c d e f g"),
        ("(a; b) | { c; d; }", "a b c d"),
        ("if a; then b; elif c; then d; else e; fi", "a b c d e"),
        ("while a; do b; done; until c; do d; done", "a b c d"),
        ("for x in 1 2 $(a); do b; done", "a b"),
        ("for x\ndo b; done", "b"),
        ("case $x in a|b) c;; (*) d; e ;; esac", "c d e"),
        ("! a", "a"),
        ("f() { a; }; f", "a f"),
        ("function f { a; }", "a"),
        ("echo $(a) `b` \"$(c `d`)\" <(e) >(g)", "a b d c e g echo"),
        ("echo ${x:-$(a)} \"${x#`b`}\"", "a b echo"),
        ("a=$(b) c", "b c"),
        ("cat <<E\n$(a)\nE\nb", "cat a b"),
        ("cat <<'E'\n$(a)\nE\nb", "cat b"),
        ("cat <<-E | a\n\tx\n\tE\nb", "cat a b"),
        ("a\nb\n\nc", "a b c"),
        ("a \\\n b", "a"),
        ("/bin/rm \\rm 'r'm\"x\"", "/bin/rm"),
        ("\\rm x; r''m y; \"rm\" z", "rm rm rm"),
        ("time a; time -p b", "time a time b"),
    ] {
        assert_eq!(whole(line), programs, "{line}");
    }
}

#[test]
fn what_other_programs_run_is_run() {
    for (line, programs) in [
        ("sudo rm x", "sudo rm"),
        ("sudo -u root -nE FOO=1 rm x", "sudo rm"),
        ("sudo --user=root -- rm x", "sudo rm"),
        ("env -i A=b rm x", "env rm"),
        (
            "nohup nice -n 5 timeout -s KILL 5 rm x",
            "nohup nice timeout rm",
        ),
        ("bash -c 'rm x; ls'", "bash rm ls"),
        ("sh -ec \"rm x\"", "sh rm"),
        ("eval rm x \\; ls", "eval rm ls"),
        ("find . -name x -exec rm {} \\; -exec ls {} +", "find rm ls"),
        ("a | xargs -0 -n 1 rm -f", "a xargs rm"),
        ("a | xargs -I{} mv {} /x", "a xargs mv"),
        ("a | xargs", "a xargs echo"),
        ("ssh -p 22 -o BatchMode=yes h 'rm x | ls'", "ssh rm ls"),
        ("busybox rm x", "busybox rm"),
        (
            "command -p rm; command -v ls; exec a",
            "command rm command exec a",
        ),
        ("watch -n 1 'a | b'", "watch a b"),
        ("su - u -c 'rm x'", "su sh rm"),
        ("flock /l rm x", "flock rm"),
        ("bash <<E\nrm x\nE", "bash rm"),
        ("bash <<< 'rm x'", "bash rm"),
        ("trap 'rm x' EXIT", "trap rm"),
        ("stdbuf -oL a", "stdbuf a"),
        ("/usr/bin/env -- a", "/usr/bin/env a"),
    ] {
        assert_eq!(whole(line), programs, "{line}");
    }
}

#[test]
fn what_is_not_known_before_it_runs_is_opaque() {
    for line in [
        "$X",
        "$(a) b",
        "`a`",
        "r$X x",
        "/bin/r? x",
        "/bin/[r]m",
        "{rm,-rf,/}",
        "~/x",
        "a | sh",
        "a | base64 -d | bash",
        "curl x | sudo sh",
        "bash",
        "bash x.sh",
        "bash < x",
        "sh -c $X",
        "sh -c \"$X\"",
        "eval $X",
        "eval \"$(a)\"",
        ". ./x",
        "source x",
        "python -c 'x'",
        "python3.11 x.py",
        "perl -e x",
        "awk 'BEGIN{system(\"rm\")}'",
        "awk '{ print | \"sh\" }'",
        "awk -f x",
        "sed 's/a/b/e' x",
        "sed '1e rm' x",
        "sudo $X rm",
        "sudo -Z rm",
        "sudo -s",
        "env -S 'rm x'",
        "xargs sh -c",
        "a | xargs -I{} sh -c 'rm {}'",
        "find . -exec {} \\;",
        "find $X -name y",
        "a | parallel rm",
        "ssh h",
        "ssh -o ProxyCommand=x h ls",
        "alias ls=rm",
        "PATH=/tmp ls",
        "LD_PRELOAD=x ls",
        "env PATH=/tmp ls",
        "export PATH=/tmp",
        "IFS=x",
        "echo $((x))",
        "echo $((a[$(rm)]))",
        "((x))",
        "echo ${x[$(rm)]}",
        "echo ${!x}@",
        "echo 'a",
        "echo \"a",
        "echo $(a",
        "(a",
        "a)",
        "if a; then b",
        "a &&",
        "; a",
        "a ;; b",
        "cat <<E",
        "echo a(b)",
        "$'rm' x",
        "\\x72m x",
        "echo 'a\\'",
        "x=(a b)",
        "coproc a",
        "=rm x",
        "declare -n x=y",
        "read $X",
        "unset 'a[$(rm)]'",
        "test -v 'a[$(rm)]'",
        "[[ $x -eq 1 ]]",
        "printf -v x y",
        "tar -cf x --checkpoint-action=exec=sh y",
        "tar xIf z x",
        "git -c core.pager=x log",
        "rsync -e x a b",
        "docker exec x rm",
        "exec < x",
        "a\rb",
        "set -k",
        "shopt -s extglob",
        "vim -c '!rm'",
        "at now",
    ] {
        assert!(read(line.as_bytes()).is_opaque(), "{line}: {}", whole(line));
    }
}

#[test]
fn everyday_lines_are_not_opaque() {
    for line in [
        "ls -la ~/x *.log $HOME",
        "cat /etc/hosts | grep -v '^#' | awk '{print $1}' | sort -u",
        "sed -n '1,20p' x",
        "sed -i 's/a/b/g' x",
        "cd /srv && git pull && systemctl restart app",
        "git commit -m \"$MSG\"",
        "for f in *.txt; do wc -l \"$f\"; done",
        "test -f x && echo yes || echo no",
        "[ \"$x\" -gt 3 ] && echo a",
        "find . -name '*.log' -mtime +7 -delete",
        "tar czf x.tgz dir",
        "docker ps -a",
        "echo $((1 + 2))",
        "X=ls; $X -l",
        "export LANG=C",
        "set -euo pipefail; ls",
        "ls 2>&1 > /dev/null",
        "crontab -l",
        "curl -s http://x/y -o z",
        "echo \"hi!\"",
        "python3 --version",
        "mysql -e 'select 1'",
        "rsync -av a b",
        "sudo systemctl status x",
    ] {
        assert!(
            !read(line.as_bytes()).is_opaque(),
            "{line}: {}",
            whole(line)
        );
    }
}

#[test]
fn arguments_are_what_the_program_gets() {
    let arguments = |line: &str| {
        let read = read(line.as_bytes());
        let program = read.programs.last().unwrap().clone();
        let each = program.arguments.iter();
        each.map(|arg| arg.as_deref().unwrap_or("?").to_owned())
            .collect::<Vec<_>>()
            .join("|")
    };
    for (line, is) in [
        ("a 'b c' \"d\\\"e\" f\\ g", "b c|d\"e|f g"),
        ("a '' \"\"", "|"),
        ("a *.log $X ~ \"$X\" b", "?|?|?|?|b"),
        ("a --x={b,c}", "?"),
        ("a {} []", "{}|?"),
        ("X='b c'; a $X \"$X\" d$X", "b|c|b c|db|c"),
        ("X=b; X=c; a $X", "?"),
        ("a 2>&1 b >x c", "b|c"),
        ("a b#c #d", "b#c"),
        ("sudo a -b", "-b"),
        ("find . -exec a {} b \\;", "?|b"),
    ] {
        assert_eq!(arguments(line), is, "{line}");
    }
}

#[test]
fn input_comes_from_where_the_line_says() {
    let inputs = |line: &str| {
        let read = read(line.as_bytes());
        let each = read.programs.iter().filter(|p| !p.is_opaque());
        each.map(|p| format!("{}:{}", p.name().unwrap(), p.stdin.name()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (line, is) in [
        ("a | b", "a:inherited b:piped"),
        ("a < x", "a:file"),
        ("a < /dev/null", "a:empty"),
        ("a <<< x", "a:document"),
        ("a <<E\nE", "a:document"),
        ("a <&3", "a:unknown"),
        ("a <&-", "a:empty"),
        ("a | (b; c < x)", "a:inherited b:piped c:file"),
        ("while a; do b; done < x", "a:file b:file ::inherited"),
        ("a | sudo b", "a:inherited sudo:piped b:piped"),
        ("a | xargs b", "a:inherited xargs:piped b:empty"),
        ("a | b < x", "a:inherited b:file"),
        ("a 3< x", "a:inherited"),
    ] {
        assert_eq!(inputs(line), is, "{line}");
    }
}

#[test]
fn files_that_the_shell_opens_are_told() {
    let files = |line: &str| {
        let read = read(line.as_bytes());
        let writes = |p: &SshProgram| {
            let each = p
                .writes
                .iter()
                .map(|w| w.as_deref().unwrap_or("?").to_owned());
            each.collect::<Vec<_>>().join("|")
        };
        read.programs
            .iter()
            .map(writes)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (line, is) in [
        ("a > x", "x"),
        ("a >> x 2> y &> $Z >& w", "x|y|?|w"),
        ("a > /dev/null 2>&1", ""),
        ("{ a; } > x", " x"),
        ("> x", "x "),
        ("a <> x", "x"),
    ] {
        assert_eq!(files(line), is, "{line}");
    }
}

#[test]
fn a_line_that_is_entered_may_mean_more() {
    for line in [
        "!!",
        "rm !$",
        "echo \"!x\"",
        "^a^b",
        "ls # ; rm x",
        "f() { a; }",
        "trap 'a' DEBUG",
        "stty -echo",
        "stty size erase x",
        "stty $X",
        "reset",
    ] {
        assert!(read_entered(line.as_bytes()).is_opaque(), "{line}");
    }
    for line in [
        "[ ! -f x ]",
        "a != b",
        "ls # all of it",
        "echo '!x'",
        "! a",
        "stty size",
        "stty -a",
    ] {
        assert!(!read_entered(line.as_bytes()).is_opaque(), "{line}");
    }
}

#[test]
fn values_that_double_end_somewhere_and_brackets_cost_no_more_than_other_letters() {
    let mut line = "a=".to_owned() + &"x".repeat(100) + ";";
    let names: Vec<String> = ('b'..='z').map(|c| c.to_string()).collect();
    let mut before = "a".to_owned();
    for name in &names {
        line.push_str(&format!("{name}=${{{before}}}${{{before}}}${{{before}}};"));
        before.clone_from(name);
    }
    line.push_str(&format!("cmd ${before}"));
    let programs = read(line.as_bytes()).programs;
    assert_eq!(programs.last().unwrap().arguments, [None]);
    for line in ["[".repeat(60_000), "a=1;".repeat(15_000)] {
        let _ = read(line.as_bytes());
    }
}

#[test]
fn no_line_is_too_much() {
    let deep = |open: &str, close: &str| format!("{}a{}", open.repeat(5000), close.repeat(5000));
    for line in [
        deep("$(", ")"),
        deep("(", ")"),
        deep("{ ", "; }"),
        deep("\"$(", ")\""),
        deep("${x:-", "}"),
        deep("`", "`"),
        deep("if ", "; then b; fi"),
        "sudo ".repeat(10_000),
        "eval ".repeat(10_000),
        "a;".repeat(30_000),
        "a|".repeat(30_000),
        "cat <<E;".repeat(5000),
        "x".repeat(LINE_LIMIT + 1),
        "sh -c 'sh -c \"sh -c x\"'; ".repeat(2000),
    ] {
        let read = read(line.as_bytes());
        assert!(read.is_opaque());
        assert!(read.programs.len() <= PROGRAM_LIMIT + 1);
    }
    assert!(read(b"\xff\x00").is_opaque());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
        }

        #[test]
        fn what_stands_behind_a_separator_is_always_found_or_the_line_is_opaque(
            before in "[ a-z'\"$`(){}\\\\|&;<>#!*?=\\n-]{0,24}",
            by in prop::sample::select(vec![";", "\n", "&&", "||", "|", "&"]),
        ) {
            let line = format!("{before} {by} needle x");
            let read = read(line.as_bytes());
            let found = read.programs.iter().any(|p| p.name() == Some("needle"));
            // Within quotes, comments, words of a loop and here-documents it is none.
            let hides = before.contains(['\'', '"', '\\', '`', '#', '<'])
                || before.contains("case") || before.contains("for");
            prop_assert!(found || read.is_opaque() || hides, "{line:?}: {:?}", read.programs);
        }
    }
}
