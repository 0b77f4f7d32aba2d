package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
)

// runLine runs a command line in this process. It must not be one that serves.
func runLine(args ...string) (code int, stdout, stderr string) {
	var out, complaint bytes.Buffer
	code = runMain(environment{ctx: context.Background(), stdout: &out, stderr: &complaint}, args)
	return code, out.String(), complaint.String()
}

func TestCommands(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args           string
		code           int
		stdout, stderr string // what each holds; "": nothing at all
	}{
		{"version", exitDone, "homeroom " + version + ", protocol 0.03\ncommit ", ""},
		{"version -h", exitDone, "", "print the version"},
		{"version now", exitUsage, "", "too many arguments: now"},
		{"version -loud", exitUsage, "", "-loud"},
		{"config", exitDone, sampleConfig, ""},
		{"config more", exitUsage, "", "too many arguments: more"},
		{"config -h", exitDone, "", "print the settings file"},
		{"help", exitDone, "usage: homeroom COMMAND", ""},
		{"-help", exitDone, "usage: homeroom COMMAND", ""},
		{"--help", exitDone, "usage: homeroom COMMAND", ""},
		{"serve -h", exitDone, "", "-config FILE"},
		{"-h", exitDone, "", "-data DIR"},
		{"serve -no-such-flag", exitUsage, "", "-no-such-flag"},
		{"serve here", exitUsage, "", "too many arguments: here"},
		{"serv", exitUsage, "", `there is no command "serv"; did you mean "serve"?`},
		{"verison", exitUsage, "", `did you mean "version"?`},
		{"confg", exitUsage, "", `did you mean "config"?`},
		{"hlep", exitUsage, "", `did you mean "help"?`},
	}
	for _, test := range tests {
		code, stdout, stderr := runLine(strings.Fields(test.args)...)
		if code != test.code {
			t.Errorf("%q: exit code %d, want %d", test.args, code, test.code)
		}
		for _, stream := range []struct{ name, got, want string }{{"stdout", stdout, test.stdout}, {"stderr", stderr, test.stderr}} {
			if stream.want == "" && stream.got != "" || !strings.Contains(stream.got, stream.want) {
				t.Errorf("%q: %s is %q, want %q in it", test.args, stream.name, stream.got, stream.want)
			}
		}
	}
}

// TestParse: flags stand before a command's arguments or behind them; after -- all
// are arguments.
func TestParse(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"-n 5 one two": "5 one two", "one -n 5 two": "5 one two", "one two -n 5": "5 one two", "one": "0 one", "": "0 ",
		"-n 5 -- -n 6": "5 -n 6", "one -- -n": "0 one -n", "one two three": "too many", "one -n": "needs an argument", "one -m": "not defined",
	} {
		var out strings.Builder
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		flags.SetOutput(&out)
		n := flags.Int("n", 0, "")
		code, done := parse(flags, strings.Fields(line), 2)
		if !done {
			fmt.Fprintf(&out, "%d %s", *n, strings.Join(flags.Args(), " "))
		}
		if !strings.Contains(out.String(), want) || done != (code == exitUsage) {
			t.Errorf("%q: exit code %d, %v, %q; want %q", line, code, done, out.String(), want)
		}
	}
}

// TestHelpShowsAll: every command stands in the help, and each explains itself.
func TestHelpShowsAll(t *testing.T) {
	t.Parallel()
	_, all, _ := runLine("help")
	for _, c := range subcommands() {
		if !strings.Contains(all, "  "+c.name+" ") || !strings.Contains(all, c.help) {
			t.Errorf("help does not show %s", c.name)
		}
		if c.name == "help" {
			continue
		}
		if code, _, own := runLine(c.name, "-h"); code != exitDone || !strings.Contains(own, c.help) {
			t.Errorf("%s -h: exit code %d, text %q", c.name, code, own)
		}
	}
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"serve", "serve", 0}, {"serv", "serve", 1}, {"sreve", "serve", 2}, {"kitten", "sitting", 3}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("from %q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestListeningText(t *testing.T) {
	t.Parallel()
	fixed := listeningText(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6500})
	if want := "listening on 127.0.0.1:6500; to connect: telnet 127.0.0.1 6500"; fixed != want {
		t.Errorf("got %q, want %q", fixed, want)
	}
	all := listeningText(&net.TCPAddr{IP: net.IPv6zero, Port: 6500})
	if m := regexp.MustCompile(`telnet (\S+) (\d+)`).FindStringSubmatch(all); m == nil || net.ParseIP(m[1]).IsUnspecified() || m[2] != "6500" {
		t.Errorf("on all addresses: %q names none to connect to", all)
	}
}

// TestEndingOutcome: what went wrong at a stop is returned, or in the log where the
// program starts anew and returns to nobody.
func TestEndingOutcome(t *testing.T) {
	captured := captureLog(t)
	wrong := errors.New("the last changes")
	for _, test := range []struct {
		why, stopped error
		want         []error
		says         string
	}{
		{nil, nil, nil, "msg=stopped"},
		{nil, wrong, []error{wrong}, ""},
		{errRestart, nil, []error{errRestart}, "msg=stopped"},
		{errRestart, wrong, []error{errRestart, wrong}, `went wrong at its stop" error="the last changes"`},
		{errReported, wrong, []error{errReported}, ""},
	} {
		old := len(captured.String())
		err := ending{err: test.why}.outcome(test.stopped)
		for _, want := range test.want {
			if !errors.Is(err, want) {
				t.Errorf("%v, %v: got %v, want %v in it", test.why, test.stopped, err, want)
			}
		}
		if said := captured.String()[old:]; (test.want == nil) != (err == nil) || (test.says == "") != (said == "") || !strings.Contains(said, test.says) {
			t.Errorf("%v, %v: got %v, and the log says %q, want %q", test.why, test.stopped, err, said, test.says)
		}
	}
}
