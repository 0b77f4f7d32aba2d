package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"homeroom/datadir"
	"homeroom/service"
	"homeroom/store"
)

// TestServiceCommandLines: what is no right command line does nothing.
func TestServiceCommandLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"install here": "too many arguments: here", "install -h": "-no-start", "uninstall now": "too many arguments: now",
		"uninstall -h": "-purge", "start it": "too many", "stop it": "too many", "restart -h": "restart the service",
		"logs more": "too many", "logs -n -1": "-n must not be negative", "logs -n x": "invalid value",
	} {
		code, stdout, stderr := runLine(strings.Fields(line)...)
		if help := strings.HasSuffix(line, "-h"); help != (code == exitDone) || !help && code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, %q, %q; want %q", line, code, stdout, stderr, want)
		}
	}
}

// TestWaitReady: it waits for the server of these settings, and not for ever.
func TestWaitReady(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	cfg := ts.cfg
	cfg.Server.Listen = ts.Addr
	if err := waitReady(t.Context(), &cfg); err != nil {
		t.Error(err)
	}
	ts.stopNow()
	ctx, cancel := context.WithCancelCause(t.Context())
	errGone := errors.New("interrupted")
	cancel(errGone)
	if err := waitReady(ctx, &cfg); !errors.Is(err, errGone) {
		t.Errorf("without a server: %v", err)
	}
}

// TestReadAnswer: Ctrl-C ends the question.
func TestReadAnswer(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readAnswer(ctx, in); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
}

// TestServiceSample: the service's settings differ from the sample only where they must.
func TestServiceSample(t *testing.T) {
	t.Parallel()
	for journal, want := range map[bool][]string{
		true:  {`data   = "/var/lib/homeroom"`},
		false: {`data   = "/var/lib/homeroom"`, `to = "file"`, `file = "/var/log/homeroom/homeroom.log"`},
	} {
		before, after := strings.Split(sampleConfig, "\n"), strings.Split(serviceSample(journal), "\n")
		var changed []string
		for i := range before {
			if before[i] != after[i] {
				text, _, _ := strings.Cut(after[i], "#")
				changed = append(changed, strings.TrimSpace(text))
			}
		}
		if !slices.Equal(changed, want) {
			t.Errorf("journal %v: changed: %q, want %q", journal, changed, want)
		}
	}
}

// TestFolderIn: which folder a settings file means that is faulty elsewhere.
func TestFolderIn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "data", "[server]\ndata = \"/srv/chat\"\nlisten = 6500\n": "/srv/chat",
		"nonsense\n[server]\n data   = '/srv/chat' # a comment\n": "/srv/chat", "server.data = \"/srv/chat\"\n[[[\n": "/srv/chat",
		"[server\ndata = \"/srv/chat\"\n": "/srv/chat", "[server]\nlisten = \n": "data", "[server]\nlisten = \n# data = 1\n": "data",
		"[server]\ndata = \"/srv/chat\n": "", "[server]\ndata = 1\n": "", "[server]\ndata = \"\"\n": "",
		"server = { data = \"/srv/chat\"\n": "", // it may mean anything
		"[log]\ndata = \"/srv/chat\"\n[\n":  "",
	} {
		if got, ok := folderIn(text); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, ok, want)
		}
	}
}

// TestRootGivesBack: what root makes in the service's data folder, the service can
// read; what is not the folder's own is left as it is.
func TestRootGivesBack(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const user, group = 12345, 12346
	source, folder := t.TempDir(), t.TempDir()
	serveOnce(t, source)
	file := filepath.Join(t.TempDir(), "backup")
	if code, _, stderr := runLine("backup", "-data", source, file); code != exitDone {
		t.Fatal(stderr)
	}
	outside := filepath.Join(t.TempDir(), "shadow")
	err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Symlink(outside, filepath.Join(folder, "link")),
		os.Link(outside, filepath.Join(folder, "hard")), os.Lchown(filepath.Join(folder, "link"), 0, 0), os.Chown(folder, user, group), os.Chmod(folder, 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runLine("restore", "-data", folder, file); code != exitDone {
		t.Fatal(stderr)
	}
	for path, want := range map[string]uint32{filepath.Join(folder, store.DatabaseFile): user, filepath.Join(folder, datadir.LockFile): user, outside: 0} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
}

// serveOnce makes a data folder by running a server on it for a moment.
func serveOnce(t *testing.T, folder string) {
	t.Helper()
	cfg := defaultConfig()
	cfg.Server.Data, cfg.Server.Listen, cfg.Auth.Iterations = folder, "127.0.0.1:0", 16
	srv, err := newServer(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.stop("the test is over"); err != nil {
		t.Fatal(err)
	}
}

// TestServiceSettings: what the service is told of its settings, and what is wrong
// with them.
func TestServiceSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "chat.toml")
	s, err := serviceSettings(file, true)
	if err != nil || s.Data != service.Data || s.Log != "" || s.Text != serviceSample(true) || len(s.Ways) == 0 || len(s.Pages) == 0 {
		t.Errorf("without a file: %+v, %v", s, err)
	}
	if s, err = serviceSettings(file, false); err != nil || s.Log != service.LogFile {
		t.Errorf("without a journal: %+v, %v", s, err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[server]\nlisten = \"127.0.0.1:7000\"\ndata = \"/mnt/chat\"\nkey = \"/media/stick/chat.key\"\n[web]\nlisten = \"127.0.0.1:8080\"\n[log]\nto = \"file\"\n")
	s, err = serviceSettings(file, true)
	got := []string{s.Data, s.Key, s.Log, strings.Join(s.Ways, ","), strings.Join(s.Pages, ",")}
	want := []string{"/mnt/chat", "/media/stick/chat.key", "/mnt/chat/homeroom.log", "telnet 127.0.0.1 7000", "http://127.0.0.1:8080/"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	write("[server]\nname = 1\n")
	if _, err := serviceSettings(file, true); err == nil || !strings.Contains(err.Error(), "line 2: server.name must be a text") {
		t.Errorf("bad settings: %v", err)
	}
}

// TestAskPurge: what is stored goes after a yes, and after nothing else.
func TestAskPurge(t *testing.T) {
	t.Parallel()
	found := []service.Leftover{{What: "the data and its key", Path: "/var/lib/homeroom"}, {What: "the user and the group homeroom"}}
	for answer, want := range map[string]string{"yes\n": "", "no\n": "that was not yes", "y\n": "that was not yes", "": "that was not yes", "-": "no terminal"} {
		var out strings.Builder
		env := environment{ctx: t.Context(), stdout: &out, stdin: strings.NewReader(answer)}
		if answer == "-" {
			env.stdin = nil
		}
		switch err := askPurge(env, found, false); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("the answer %q: %v", answer, err)
		}
		for _, line := range []string{"removes, for ever:", "  the data and its key: /var/lib/homeroom\n", "  the user and the group homeroom\n"} {
			if answer != "-" && !strings.Contains(out.String(), line) {
				t.Errorf("%q is not in %q", line, out.String())
			}
		}
	}
	if err := askPurge(environment{}, found, true); err != nil {
		t.Errorf("it was said already: %v", err)
	}
}

// TestTryRestart: "homeroom restart" asks the running server first whether it would
// start again; where none runs, nobody is told to go.
func TestTryRestart(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	refused := errors.New("the settings are wrong")
	ts.reread = func() (config, error) { return ts.cfg, refused }
	if err := tryRestart(context.Background(), ts.cfg.Server.Data); err == nil || !strings.Contains(err.Error(), "would not start again, and goes on: the settings are wrong") {
		t.Errorf("wrong settings: %v", err)
	}
	refused = nil
	for _, folder := range []string{ts.cfg.Server.Data, t.TempDir()} {
		if err := tryRestart(context.Background(), folder); err != nil {
			t.Error(err)
		}
	}
	ts.dialHost().Ask("#ping", "@ret #ping")
}

// TestExcludes: which listeners are in each other's way.
func TestExcludes(t *testing.T) {
	t.Parallel()
	for pair, want := range map[[2]string]bool{
		{"127.0.0.1:1", "127.0.0.1:1"}: true, {"127.0.0.1:1", "127.0.0.1:2"}: false, {"127.0.0.1:0", "127.0.0.1:0"}: false,
		{"127.0.0.1:1", "127.0.0.2:1"}: false, {"0.0.0.0:1", "127.0.0.1:1"}: true, {"[::]:1", "127.0.0.1:1"}: true,
		{"0.0.0.0:1", "[::1]:1"}: false, {"[::]:1", "0.0.0.0:1"}: true, {"[::1]:1", "[::]:1"}: true, {"[::ffff:127.0.0.1]:1", "127.0.0.1:1"}: true,
	} {
		a, b := netip.MustParseAddrPort(pair[0]), netip.MustParseAddrPort(pair[1])
		if excludes(a, b) != want || excludes(b, a) != want {
			t.Errorf("%s and %s: want %v", a, b, want)
		}
	}
}
