package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"homeroom/store"
)

// The fuzz targets of what has no test file of its own for them.

// FuzzSession: whatever bytes a user sends, before and after a login, what comes
// back is lines of text that do nothing to a terminal, and the session ends when
// it is told to.
func FuzzSession(f *testing.F) {
	const parts = 3
	srv := startServer(f, func(c *config) { c.Persist.Mode, c.Limits.MessageParts, c.Auth.ChallengeMD5 = "periodic", parts, true })
	for _, text := range []string{
		"#whoami\r\n#listrooms\n", "#postmessage \"a b\" 0 2\r\n#x\r\ny", "\xff\xfd\x01#ping \xff\xff\x08\n", `#broadcast "\"\\x`,
		"#creategroup g\r\n#joingroup g\r\n#postmessage h\r\ntext\r\n#listmessages\r\n#getmessage 1\r\n", "GET / HTTP/1.1\r\n",
		"#auth SCRAM-SHA-256 n,,n=a,r=b\r\n#auth c=biws,r=b,p=\r\n", "#challenge\r\n#login regd a md5:00\r\n", "#createlogin a b c d\n#rmlogin\n",
	} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, loggedIn bool) {
		mine, servers := net.Pipe()
		srv.serve(fromLoopback{servers})
		said := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(mine)
			said <- all
		}()
		if loggedIn {
			text = "#login anon fuzzer\r\n#events on\r\n" + text
		}
		_, err := io.WriteString(mine, text+strings.Repeat("\xff\xf0\r\n#quit\r\n", parts+1)) // out of a telnet sequence and a message
		if err == nil {
			all := withoutTelnet(<-said)
			for line := range strings.Lines(string(all)) {
				text, whole := strings.CutSuffix(line, "\r\n")
				if bad := unsafeFor(text); bad != "" || !whole || !utf8.ValidString(text) {
					t.Errorf("the line %q: %s", line, bad)
				}
			}
		}
		mine.Close()
	})
}

// withoutTelnet takes the answers to telnet's options out of what a server said.
func withoutTelnet(all []byte) []byte {
	for {
		at := bytes.IndexByte(all, telnetIAC)
		if at < 0 || at+2 >= len(all) || all[at+1] != telnetWONT && all[at+1] != telnetDONT {
			return all
		}
		all = append(all[:at:at], all[at+3:]...)
	}
}

// FuzzConfig: a settings file is taken, or refused with one line that names it;
// what was taken has passed the checks.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{"[server]\nname = \"x\"", "[limits]\nrooms = -1", "[server\n", "limits = { rooms = 1 }", "\"\\u0000\" = 1", "a.b.c = 1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := defaultConfig()
		err := c.parse("chat.toml", text)
		if err == nil {
			if wrong := c.check(); wrong != nil {
				t.Fatalf("%q is taken, and is wrong: %v", text, wrong)
			}
			return
		}
		if got := err.Error(); !strings.HasPrefix(got, "chat.toml") || unsafeFor(got) != "" {
			t.Fatalf("%q is refused with %q: %s", text, got, unsafeFor(got))
		}
	})
}

// FuzzAccount: an account's record that can be read can be written again, the
// same.
func FuzzAccount(f *testing.F) {
	v, err := makeVerifier("pw", []byte("salt"), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add((&accountBody{verifier: v, realName: "real", email: "mail"}).pack())
	f.Add((&accountBody{verifier: v, recoverable: "pw"}).pack())
	f.Add(store.Pack("x", "y", "z"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		b, err := parseAccountBody(packed)
		if err != nil {
			return
		}
		again, err := parseAccountBody(b.pack())
		if err != nil || again.verifier.String() != b.verifier.String() || again.realName != b.realName ||
			again.email != b.email || again.recoverable != b.recoverable {
			t.Fatalf("%q: %+v, again %+v (%v)", packed, b, again, err)
		}
	})
}

// FuzzPlace: a room's or group's record is read, or refused.
func FuzzPlace(f *testing.F) {
	f.Add((&room{place: place{name: name{"Den", "den"}, regdOnly: true}}).pack(&door{banned: []string{"bob"}}))
	f.Add(store.Pack("Den", "den", "SCRAM-SHA-256$1:AA==$AA==:AA==", "anon"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		fields, err := store.Unpack(packed, 4)
		if err != nil {
			return
		}
		var p place
		err = p.unpack(store.Record{ID: 1, Head: packed}, fields, nil, fields[4:])
		if err == nil && (p.name.shown != fields[0] || (p.door.Load().lock == nil) != (fields[2] == "")) {
			t.Fatalf("%q was read as %+v", packed, &p)
		}
	})
}

// FuzzPost: the numbers of a post that is taken are within their bounds.
func FuzzPost(f *testing.F) {
	for _, line := range []string{"heading", `"a heading" 1 2 0`, "x 0 1 60", "x -1", "x 1 1 1", "x 9223372036854775808"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := splitWords(cleanLine([]byte(line)), nil)
		if len(words) == 0 {
			return
		}
		a, err := parsePost(words)
		if err == nil && (a.secs < 0 || a.parent != 0 && a.secs != 0 || a.heading == "") {
			t.Fatalf("%q was read as %+v", line, a)
		}
	})
}

// FuzzKeyboard: what is typed at the server's own keyboard has an answer that
// does nothing to the terminal.
func FuzzKeyboard(f *testing.F) {
	srv := startServer(f)
	srv.Guest("alice")
	for _, line := range []string{"HELP", "LIST_USERS", "KICK alice", "kick \"", "hello \x1b[2J all", "KICK \x1b[2J"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.EqualFold(strings.TrimSpace(line), "EXIT") {
			return
		}
		var out bytes.Buffer
		srv.keyboard(strings.NewReader(line), &out, func() {})
		for shown := range strings.Lines(out.String()) {
			if bad := unsafeFor(strings.TrimSuffix(shown, "\n")); bad != "" {
				t.Errorf("%q shows %q: %s", line, shown, bad)
			}
		}
	})
}
