package main

import (
	"errors"
	"slices"
	"testing"
)

// TestReload: what can change holds at once, also for connected users; what cannot
// change is named; and a bad file changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	text := ""
	ts.reread = func() (config, error) {
		c := ts.cfg
		return c, c.parse("chat.toml", text)
	}
	host, alice := ts.dialHost(), ts.Guest("alice")
	host.Ask("#reload", "@ret #reload 0")
	text = "[limits]\nrooms = 1\nconnections = 3\nmessage_parts = 2\nlogins_per_minute = 1\n[server]\nname = \"Annex\"\nlisten = \":1\"\n[persist]\nmode = \"periodic\"\n"
	host.Ask("#reload", "@ret #reload 7",
		`"limits.connections is 3 now; it was 10000"`, `"limits.logins_per_minute is 1 now; it was 20"`,
		`"limits.message_parts is 2 now; it was 200"`, `"limits.rooms is 1 now; it was 1000"`,
		`"persist.mode stays commit until the server is started anew; then it is periodic"`,
		`"server.listen stays 127.0.0.1:0 until the server is started anew; then it is :1"`, `"server.name is Annex now; it was Homeroom"`)
	alice.Ask("#createroom one sesame", "@status 0")
	alice.Ask("#changeroom one wrong", "@status 3101")
	alice.Ask("#changeroom one wrong", "@status 3006")
	alice.Ask("#createroom two", "@status -2")
	alice.Ask("#creategroup news \"\" anon", "@status 0")
	alice.Ask("#joingroup news", "@status 0")
	alice.Ask("#postmessage hello 0 3", "@status 3504")
	bob := ts.Connect()
	bob.Expect(`@mess #hello "Annex" "type your name and press Enter; programs: #help"`)
	bob.Ask("#login regd nobody pw", "@status 3001")
	bob.Ask("#login regd nobody pw", "@status 3006")
	ts.Connect().Read()
	ts.Connect().Ended(`@mess #warning "the server is full; try again later"`)
	text = "[limits]\nrooms = -1\n"
	host.Ask("#reload", `@mess #warning "chat.toml, line 2: limits.rooms must not be negative; 0 switches it off"`, "@status 3504")
	alice.Ask("#createroom two", "@status -2")
	text = ""
	host.Send("#reload")
	if head := host.Read(); head != "@ret #reload 5" {
		t.Errorf("back to what it was: %s", head)
	}
	for range 5 {
		host.Read()
	}
	alice.Ask("#createroom two", "@status 0")
}

// TestReloadAtStart: these settings change only at a start, and all others at once.
func TestReloadAtStart(t *testing.T) {
	t.Parallel()
	want := []string{
		"server.listen", "server.data", "server.key", "persist.mode", "persist.every", "auth.iterations",
		"tls.listen", "tls.cert", "tls.key", "find.announce", "find.name", "web.listen", "ssh.listen",
	}
	var got []string
	was, wanted := defaultConfig(), config{}
	next, changes := was.reloaded(wanted)
	for i, s := range next.all() {
		if s.atStart {
			got = append(got, s.key)
		}
		kept := map[bool]*config{true: &was, false: &wanted}[s.atStart]
		if !s.value.Equal(kept.all()[i].value) {
			t.Errorf("%s is %v after a reload, want %v", s.key, s.value, kept.all()[i].value)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("at a start change\n%q, want\n%q", got, want)
	}
	if !slices.Contains(changes, `log.to is "" now; it was stderr`) {
		t.Errorf("changes: %q", changes)
	}
}

// TestReloadCommand: "homeroom reload" says what changed, or why nothing does.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	var changed config
	var refused error
	ts.reread = func() (config, error) { return changed, refused }
	settings := writeSettings(t, programSettings)
	reload := func(want int, say string) {
		t.Helper()
		code, said := commandLine(t, nil, "reload", "-config", settings, "-data", ts.cfg.Server.Data)
		if code != want || said != say {
			t.Errorf("exit code %d, %q; want %d, %q", code, said, want, say)
		}
	}
	folder := ts.cfg.Server.Data
	changed = ts.cfg
	reload(exitDone, "data folder  "+folder+"\nthe settings were read; nothing changed\n")
	changed.Limits.Rooms = 7
	reload(exitDone, "data folder  "+folder+"\nlimits.rooms is 7 now; it was 1000\n")
	refused = errors.New("the file\nis not there")
	reload(exitFailed, "homeroom: the server refuses #reload: the file; is not there (3504) (data folder "+folder+")\n")
	ts.stopNow()
	reload(exitFailed, "homeroom: no server runs on that data folder ("+ts.cfg.Server.Data+"); start it, or name the folder that it uses with -data\n")
}
