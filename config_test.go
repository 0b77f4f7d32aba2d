package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// settingsOf returns every setting by its key, as the values print.
func settingsOf(c config) map[string]string {
	all := map[string]string{}
	for _, s := range c.all() {
		all[s.key] = fmt.Sprint(s.value)
	}
	return all
}

// TestSampleIsDefault: chat.toml sets every key that there is to its default.
func TestSampleIsDefault(t *testing.T) {
	t.Parallel()
	var sample config
	if err := sample.parse("chat.toml", sampleConfig); err != nil {
		t.Fatal(err)
	}
	want := settingsOf(defaultConfig())
	for key, value := range settingsOf(sample) {
		if value != want[key] {
			t.Errorf("%s is %s in chat.toml, %s by default", key, value, want[key])
		}
		if !knownSettings()[key] {
			t.Errorf("%s is not in chat.toml", key)
		}
	}
}

// TestSettingsInDesign: the settings that tests and tools rely on, by the names
// and defaults that they rely on.
func TestSettingsInDesign(t *testing.T) {
	t.Parallel()
	got := settingsOf(defaultConfig())
	for key, want := range map[string]string{
		"server.name": "Homeroom", "server.listen": ":6500", "server.data": "data", "server.key": "",
		"limits.connections": "10000", "limits.connections_per_ip": "512", "limits.waiting": "512",
		"limits.waiting_per_ip": "256", "limits.local_addresses": "256", "limits.login_grace": "2m0s", "limits.commands_per_second": "20",
		"limits.command_burst": "60", "limits.logins_per_minute": "20", "limits.guesses_per_account": "20", "limits.hashes_per_minute": "120", "limits.accounts": "100000", "limits.rooms": "1000",
		"limits.groups": "1000", "limits.messages": "1000000", "limits.message_parts": "200", "limits.unfinished_kib": "16384",
		"limits.unfinished_kib_each": "2048", "limits.unfinished_time": "1m0s",
		"limits.store_mib": "1024", "limits.store_mib_each": "64", "limits.reserve_mib": "64",
		"expiry.room": "30m0s", "expiry.group": "168h0m0s", "expiry.message": "720h0m0s", "expiry.max": "8760h0m0s",
		"persist.mode": "commit", "persist.every": "2s",
		"auth.plain_password": "lan", "auth.challenge_md5": "false", "auth.iterations": "0",
		"tls.listen": "", "tls.cert": "", "tls.key": "", "ssh.listen": "",
		"log.to": "stderr", "log.file": "", "log.size_kib": "1024", "log.keep": "3", "log.level": "info",
		"web.listen": ":6580", "web.metrics": "loopback",
		"find.announce": "true", "find.name": "homeroom",
		"admin.reboot": "", "admin.poweroff": "", "limits.bans": "1000", "limits.room_bans": "100",
	} {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("%s is %q (there: %v), want %q", key, value, ok, want)
		}
	}
}

// TestEverySetting: each key can be set to something else, alone, and nothing
// else changes.
func TestEverySetting(t *testing.T) {
	t.Parallel()
	other := map[string]string{
		"server.name": `"Annex"`, "server.listen": `"[::1]:7000"`, "server.data": `"elsewhere"`, "server.key": `"ask"`,
		"limits.login_grace": `"90s"`, "limits.unfinished_time": `"90s"`, "limits.command_burst": "1",
		"expiry.room": `"1h"`, "expiry.group": "0", "expiry.message": `"1m30s"`, "expiry.max": `"0"`,
		"persist.mode": `"periodic"`, "persist.every": `"10ms"`,
		"auth.plain_password": `"never"`, "auth.challenge_md5": "true", "auth.iterations": "600000", "tls.listen": `"[::1]:7001"`,
		"log.to": `"file"`, "log.file": `"a.log"`, "log.size_kib": "4", "log.keep": "100", "log.level": `"debug"`,
		"web.listen": `""`, "web.metrics": `"all"`,
		"find.announce": "false", "find.name": `"Pi-2"`,
		"admin.reboot": `"systemctl reboot"`, "admin.poweroff": `"systemctl poweroff"`,
	}
	defaults := settingsOf(defaultConfig())
	for key, was := range defaults {
		value := other[key]
		switch section, _, _ := strings.Cut(key, "."); {
		case value == "" && section == "limits":
			value = "0"
		case value == "": // not alone, or for a later version: other tests have those
			continue
		}
		section, name, _ := strings.Cut(key, ".")
		c := defaultConfig()
		if err := c.parse("chat.toml", "["+section+"]\n"+name+" = "+value+"\n"); err != nil {
			t.Errorf("%s = %s: %v", key, value, err)
			continue
		}
		for k, v := range settingsOf(c) {
			if k != key && v != defaults[k] {
				t.Errorf("%s = %s changes %s to %s", key, value, k, v)
			}
			if k == key && v == was {
				t.Errorf("%s = %s: it is still %s", key, value, v)
			}
		}
	}
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"[server]\nport = 6500", "line 2: there is no setting server.port"},
		{"\n\n[serve]\nlisten = \":1\"", "line 3: there is no setting serve"},
		{"listen = \":1\"", "line 1: there is no setting listen"},
		{"[server.listen]\nport = 1", "line 1: server.listen must be a text"},
		{"[server]\nlisten = 6500", "line 2: server.listen must be a text"},
		{"[server]\nname = \"\"", "line 2: server.name must have 1 to 100 bytes"},
		{"[server]\nname = \"" + strings.Repeat("x", 101) + "\"", "line 2: server.name must have"},
		{"[server]\nname = \"a\\u001b[2J\"", "line 2: server.name must have"},
		{"[server]\ndata = \"\"", "line 2: server.data must name a folder"},
		{"[server]\nlisten = \"6500\"", "line 2: server.listen must be an address and a port"},
		{"[server]\nlisten = \":65536\"", "line 2: server.listen must end in a port from 0 to 65535"},
		{"[server]\nlisten = \":-1\"", "line 2: server.listen must end in a port"},
		{"[server]\nlisten = \":telnet\"", "line 2: server.listen must end in a port"},
		{"[limits]\nrooms = \"many\"", "line 2: limits.rooms must be a number"},
		{"[limits]\nrooms = 1.5", "line 2: limits.rooms must be a number"},
		{"[limits]\nrooms = 99999999999999999999", "line 2: "},
		{"[limits]\ncommand_burst = 0", "line 2: limits.command_burst must be at least 1"},
		{"[limits]\nlogin_grace = 60", "60 is no time"},
		{"[limits]\nlogin_grace = \"2 minutes\"", "2 minutes is no time"},
		{"[limits]\nunfinished_time = \"-1s\"", "line 2: limits.unfinished_time must not be negative"},
		{"[limits]\nlogin_grace = \"-1s\"", "line 2: limits.login_grace must not be negative"},
		{"[expiry]\nroom = true", "true is no time"},
		{"[expiry]\nroom = \"-1s\"", "line 2: expiry.room must not be negative"},
		{"[expiry]\ngroup = \"-1s\"", "line 2: expiry.group must not be negative"},
		{"[expiry]\nmessage = \"-1s\"", "line 2: expiry.message must not be negative"},
		{"[expiry]\nmax = \"-1s\"", "line 2: expiry.max must not be negative"},
		{"[persist]\nmode = \"Commit\"", `line 2: persist.mode must be "commit" or "periodic"`},
		{"[persist]\n\n# often\nevery = \"1ms\"", `line 4: persist.every must be at least "10ms"`},
		{"[persist]\nevery = 0", `line 2: persist.every must be at least "10ms"`},
		{"[auth]\nplain_password = \"always\"", `line 2: auth.plain_password must be "lan", "loopback" or "never"`},
		{"[auth]\nregistration = \"closed\"", `line 2: auth.registration must be "open" or "admin"`},
		{"[auth]\npassword_min = -1", "line 2: auth.password_min must be 0 to 100"},
		{"[auth]\npassword_min = 101", "line 2: auth.password_min must be 0 to 100"},
		{"[auth]\niterations = -1", "line 2: auth.iterations must be 0 to 600000"},
		{"[auth]\niterations = 600001", "line 2: auth.iterations must be 0 to 600000"},
		{"[tls]\nlisten = \"6501\"", "line 2: tls.listen must be an address and a port"},
		{"[tls]\nlisten = \":x\"", "line 2: tls.listen must end in a port"},
		{"[tls]\nlisten = true", "line 2: tls.listen must be a text"},
		{"[tls]\ncert = \"a.pem\"", "line 2: tls.cert needs tls.key too"},
		{"[tls]\n\nkey = \"a.pem\"", "line 3: tls.key needs tls.cert too"},
		{"[log]\nto = \"journal\"", `line 2: log.to must be "stderr" or "file"`},
		{"[log]\nfile = \"data/homeroom.db\"", `line 2: log.file must end in ".log"`},
		{"[log]\nsize_kib = 3", "line 2: log.size_kib must be 4 to 1048576"},
		{"[log]\nsize_kib = 1048577", "line 2: log.size_kib must be 4 to 1048576"},
		{"[log]\nsize_kib = \"1MiB\"", "line 2: log.size_kib must be a number"},
		{"[log]\nkeep = -1", "line 2: log.keep must be 0 to 100"},
		{"[log]\nkeep = 101", "line 2: log.keep must be 0 to 100"},
		{"[log]\nlevel = \"INFO\"", `line 2: log.level must be "debug", "info", "warn" or "error"`},
		{"[web]\nlisten = \"6580\"", "line 2: web.listen must be an address and a port"},
		{"[web]\nmetrics = \"lan\"", `line 2: web.metrics must be "loopback" or "all"`},
		{"[find]\nname = \"" + strings.Repeat("x", 64) + "\"", "line 2: find.name must have 1 to 63 letters"},
		{"[find]\nname = \"home room\"", "line 2: find.name must have"},
		{"[find]\nname = \"home.room\"", "line 2: find.name must have"},
		{"[find]\nname = \"-homeroom\"", "line 2: find.name must have"},
		{"[find]\nname = \"homeroom-\"", "line 2: find.name must have"},
		{"[find]\nname = \"höm\"", "line 2: find.name must have"},
		{"[find]\nannounce = 1", "line 2: find.announce must be true or false"},
		{"[admin]\nreboot = \" \"", "line 2: admin.reboot must be a command"},
		{"[admin]\n\npoweroff = [1]", "line 3: admin.poweroff must be a text"},
		{"[server]\nname = \"one\"\nname = \"two\"", "line 3: "},
		{"[server]\nname = Homeroom", "line 2: "},
		{"[server\nname = \"x\"", "line "},
		{"\n\n=", "line 3: "},
		{"[server]\nname = \"never closed", "line 2: "},
		{"[server]\nname = \"\xff\"", "line 2: "},
	}
	for key := range settingsOf(defaultConfig()) {
		if section, name, _ := strings.Cut(key, "."); section == "limits" && name != "login_grace" && name != "unfinished_time" {
			tests = append(tests, struct{ text, want string }{"[limits]\n" + name + " = -1", "line 2: " + key + " must not be negative"})
		}
	}
	for _, test := range tests {
		c := defaultConfig()
		err := c.parse("some/chat.toml", test.text)
		if err == nil {
			t.Errorf("%q is taken", test.text)
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, "some/chat.toml") || !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%q: got %q, want the file, and %q", test.text, got, test.want)
		}
	}
}

// TestLaterListeners: addresses for a later version are checked, taken and named.
func TestLaterListeners(t *testing.T) {
	t.Parallel()
	c := defaultConfig()
	if err := c.parse("chat.toml", "[ssh]\nlisten = \":6522\"\n"); err != nil {
		t.Fatal(err)
	}
	want := []laterListener{{"ssh.listen", ":6522"}}
	if got := c.laterListeners(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	c = defaultConfig()
	err := c.parse("chat.toml", "[ssh]\nlisten = \"6522\"\n")
	if err == nil || !strings.Contains(err.Error(), "line 2: ssh.listen must be an address and a port") {
		t.Errorf("got %v", err)
	}
	if later := defaultConfig(); len(later.laterListeners()) != 0 {
		t.Errorf("by default: %v", later.laterListeners())
	}
}

// TestSettingsForms: the ways to write a key of which the line must be found.
func TestSettingsForms(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ text, want string }{
		{"# first\nlimits.rooms = -1", "line 2: limits.rooms"},
		{"limits = { rooms = -1 }", "line 1: limits.rooms"},
		{"[limits]\nwaiting = 5\nrooms=-1 # few", "line 3: limits.rooms"},
		{"[ limits ]\n  \"rooms\" = -1", "line 2: limits.rooms"},
		{"[server]\nname = \"rooms = 1\"\n[limits]\nrooms = -1", "line 4: limits.rooms"},
		{"[limits]\r\nrooms = -1\r\n", "line 2: limits.rooms"},
	} {
		c := defaultConfig()
		if err := c.parse("chat.toml", test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %q", test.text, err, test.want)
		}
	}
}

// TestLoadConfig: which file is read. (It is not parallel: it changes the folder
// that the process is in.)
func TestLoadConfig(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	if c, err := loadConfig(""); err != nil || !reflect.DeepEqual(c, defaultConfig()) {
		t.Errorf("no file: %v, %+v", err, c)
	}
	if _, err := loadConfig("chat.toml"); err == nil || !strings.Contains(err.Error(), "cannot read the settings") {
		t.Errorf("a file that is named and not there: %v", err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("chat.toml", "[server]\nname = \"here\"")
	write("other.toml", "[server]\nname = \"there\"")
	write("empty.toml", "")
	for path, want := range map[string]string{"": "here", "chat.toml": "here", "other.toml": "there", "empty.toml": "Homeroom"} {
		if c, err := loadConfig(path); err != nil || c.Server.Name != want {
			t.Errorf("%q: the name is %q (%v), want %q", path, c.Server.Name, err, want)
		}
	}
	write("chat.toml", "[server]\nname = 1")
	if _, err := loadConfig(""); err == nil || !strings.Contains(err.Error(), "chat.toml") || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a bad file: %v", err)
	}
}

// TestDefaultsAreSound: the defaults pass their own check, and chat.toml has no
// key that is none.
func TestDefaultsAreSound(t *testing.T) {
	t.Parallel()
	c := defaultConfig()
	if err := c.check(); err != nil {
		t.Error(err)
	}
	if keys := slices.Sorted(func(yield func(string) bool) {
		for key := range knownSettings() {
			if strings.Contains(key, ".") && !yield(key) {
				return
			}
		}
	}); len(keys) != len(settingsOf(c)) {
		t.Errorf("chat.toml has %d keys, there are %d settings", len(keys), len(settingsOf(c)))
	}
}

// TestFindNames: the names that the machine can be found by, at the edges.
func TestFindNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "x", "7", "Home-Room-2", strings.Repeat("x", 63)} {
		c := defaultConfig()
		if err := c.parse("chat.toml", "[find]\nname = \""+name+"\"\n"); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}
