package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"homeroom/store"
)

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                     nil,
		"   \t ":               nil,
		"one":                  {"one"},
		" one  two\tthree ":    {"one", "two", "three"},
		`"one two" three`:      {"one two", "three"},
		`""`:                   {""},
		`a "" b`:               {"a", "", "b"},
		`"`:                    {""},
		`"never closed `:       {"never closed "},
		`"a \"b\" c"`:          {`a "b" c`},
		`"a \\ b"`:             {`a \ b`},
		`"a\\"b`:               {`a\`, "b"},
		`"a \n \x b"`:          {`a \n \x b`},
		`"ends with \`:         {`ends with \`},
		`"ends with \"`:        {`ends with "`},
		`a"b c"d`:              {`a"b`, `c"d`},
		`back\slash \"`:        {`back\slash`, `\"`},
		`"one""two"`:           {"one", "two"},
		`"one"two "three"four`: {"one", "two", "three", "four"},
		"\"a\tb\"":             {"a\tb"},
		"é \"日 本\"":            {"é", "日 本"},
		"no\u00a0break":        {"no\u00a0break"},
	} {
		if got := splitWords(line, nil); !slices.Equal(got, want) {
			t.Errorf("splitWords(%q) = %q, want %q", line, got, want)
		}
	}
}

// TestSplitWordsAppends checks that words that are there already stay.
func TestSplitWordsAppends(t *testing.T) {
	got := splitWords("b c", []string{"a"})
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got %q", got)
	}
}

func TestQuoting(t *testing.T) {
	for text, want := range map[string][2]string{ // as a name, as free text
		"plain":   {"plain", `"plain"`},
		"":        {`""`, `""`},
		"a b":     {`"a b"`, `"a b"`},
		"a\tb":    {"\"a\tb\"", "\"a\tb\""},
		`a"b`:     {`"a\"b"`, `"a\"b"`},
		`a\b`:     {`"a\\b"`, `"a\\b"`},
		`\`:       {`"\\"`, `"\\"`},
		`""`:      {`"\"\""`, `"\"\""`},
		"#@-é日":   {"#@-é日", `"#@-é日"`},
		`say "hi`: {`"say \"hi"`, `"say \"hi"`},
	} {
		if got := string(appendName(nil, text)); got != want[0] {
			t.Errorf("appendName(%q) = %s, want %s", text, got, want[0])
		}
		if got := string(appendQuoted(nil, text)); got != want[1] {
			t.Errorf("appendQuoted(%q) = %s, want %s", text, got, want[1])
		}
	}
}

func TestParseNumber(t *testing.T) {
	for word, want := range map[string]int64{
		"0": 0, "7": 7, "007": 7, "+7": 7, "-7": -7, "-0": 0,
		"9223372036854775807":    math.MaxInt64,
		"9223372036854775808":    math.MaxInt64,
		"99999999999999999999":   math.MaxInt64,
		"+99999999999999999999":  math.MaxInt64,
		"-9223372036854775808":   math.MinInt64,
		"-99999999999999999999":  math.MinInt64,
		strings.Repeat("9", 900): math.MaxInt64,
	} {
		if got, ok := parseNumber(word); !ok || got != want {
			t.Errorf("parseNumber(%.30q) = %d, %v, want %d", word, got, ok, want)
		}
	}
	for _, word := range []string{
		"", "+", "-", "--1", "+-1", "1-", "1.0", "1e3", "0x10", "1_000", " 1", "1 ", "one", "٣", "１",
	} {
		if got, ok := parseNumber(word); ok {
			t.Errorf("parseNumber(%q) = %d, want no number", word, got)
		}
	}
}

func TestCleanLine(t *testing.T) {
	for line, want := range map[string]string{
		"":                      "",
		"plain ~ text\t.":       "plain ~ text\t.",
		"a\x00b\x01\x1bc\x1f":   "abc",
		"a\rb\x0b\x0cc\x7f":     "abc",
		"\x1b[31mred\x1b[0m":    "[31mred[0m",
		"a\u0080b\u009bc\u009f": "abc",
		"a\u00a0b":              "a\u00a0b",
		"é日\U0001f600":          "é日\U0001f600",
		"\xff":                  "\ufffd",
		"a\xc3":                 "a\ufffd",
		"\xe2\x82":              "\ufffd\ufffd",
		"\xed\xa0\x80":          "\ufffd\ufffd\ufffd", // a surrogate
		"\xc0\xaf":              "\ufffd\ufffd",       // too long a form of a slash
		"\xf4\x90\x80\x80":      "\ufffd\ufffd\ufffd\ufffd",
		"\x9b31m":               "\ufffd31m", // a C1 control as a bare byte
		"\ufffd":                "\ufffd",
	} {
		if got := cleanLine([]byte(line)); got != want {
			t.Errorf("cleanLine(%q) = %q, want %q", line, got, want)
		}
	}
}

// TestCleanLineEveryCharacter holds every code point against the rules of A1.
func TestCleanLineEveryCharacter(t *testing.T) {
	dropped := func(r rune) bool {
		return r < 0x20 && r != '\t' || r >= 0x7f && r <= 0x9f ||
			r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 ||
			r == 0x2028 || r == 0x2029 // line and paragraph separators: they make lines
	}
	for r := range rune(utf8.MaxRune + 1) {
		if !utf8.ValidRune(r) {
			continue
		}
		want := "a" + string(r) + "b"
		if dropped(r) {
			want = "ab"
		}
		if got := cleanLine([]byte("a" + string(r) + "b")); got != want {
			t.Fatalf("cleanLine with %U = %q, want %q", r, got, want)
		}
	}
}

func TestLooksLikeHTTP(t *testing.T) {
	for _, line := range []string{
		"GET / HTTP/1.1", "HEAD / HTTP/1.0", "POST /x HTTP/1.1", "PUT /x HTTP/1.1", "DELETE /x HTTP/1.1",
		"CONNECT host:6500 HTTP/1.1", "OPTIONS * HTTP/1.1", "TRACE / HTTP/1.1", "PATCH / HTTP/1.1", "PRI * HTTP/2.0",
	} {
		if !looksLikeHTTP(line) {
			t.Errorf("%q is not seen as HTTP", line)
		}
	}
	for _, line := range []string{"#login anon GET", "get / HTTP/1.1", "GETTING", "PRINT it", "", "GET"} {
		if looksLikeHTTP(line) {
			t.Errorf("%q is seen as HTTP", line)
		}
	}
}

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		line []byte
		want string
	}{
		{messFrame("sendto", "alice", `say "hi"`).show(lookProgram), "@mess #sendto alice \"say \\\"hi\\\"\"\r\n"},
		{messFrame("broadcast", `a"b`, "").show(lookProgram), "@mess #broadcast \"a\\\"b\" \"\"\r\n"},
		{warningFrame("line longer than 1000 bytes").show(lookProgram), "@mess #warning \"line longer than 1000 bytes\"\r\n"},
		{statusLine(statusNotEmpty), "@status -5\r\n"},
		{okLine, "@status 0\r\n"},
		{eventFrame("x", num(1), named("a b"), quoted("c"), num(-2)).show(lookProgram), "@mess #x 1 \"a b\" \"c\" -2\r\n"},
	} {
		if string(c.line) != c.want {
			t.Errorf("got %q, want %q", c.line, c.want)
		}
	}
}

// TestStatusCodes holds the numbers against those of the protocol page.
func TestStatusCodes(t *testing.T) {
	for code, want := range map[status]int{
		statusOK: 0, statusUnknown: -1, statusLimit: -2, statusNotFound: -3, statusInvalidName: -4, statusNotEmpty: -5,
		statusNoUserType: 3000, statusNoAccount: 3001, statusWrongPassword: 3002, statusNameInUse: 3003,
		statusNameTaken: 3004, statusThrottled: 3006, statusNoRoom: 3100, statusRoomPassword: 3101,
		statusRoomNameUsed: 3102, statusNotOwner: 3103, statusNoGroup: 3200, statusGroupPassword: 3201,
		statusNoLogin: 3500, statusNoGuests: 3501, statusNoCommand: 3502, statusDeleting: 3503,
		statusBadArgs: 3504, statusFlood: 3505, statusDisabled: 3508,
	} {
		if int(code) != want {
			t.Errorf("a status is %d, want %d", code, want)
		}
	}
}

func TestPackFields(t *testing.T) {
	for _, fields := range [][]string{
		nil, {""}, {"", ""}, {"one"}, {"one", "", "three"}, {strings.Repeat("x", 300)}, {"\x00\uFFFD", "é", "\uFFFD\uFFFD"},
	} {
		got, err := store.Unpack(store.Pack(fields...), len(fields))
		if err != nil || !slices.Equal(got, fields) {
			t.Errorf("%.20q came back as %.20q, %v", fields, got, err)
		}
	}
	for _, damaged := range []string{"\x05abc", "\xff", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "\x01a"} {
		if got, err := store.Unpack([]byte(damaged), 2); err == nil {
			t.Errorf("%q was read as %q", damaged, got)
		}
	}
}

// TestHelp holds "#help" against the command table: everybody is shown what they
// may use.
func TestHelp(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	ts.admin("root").Ask("#help", fmt.Sprintf("@ret #help %d", len(commandRows())))
	atConsole := slices.DeleteFunc(commandRows(), func(c command) bool { return !c.host })
	ts.dialHost().Ask("#help", fmt.Sprintf("@ret #help %d", len(atConsole)))
	alice, rows := ts.Dial(), slices.DeleteFunc(commandRows(), func(c command) bool { return c.who == forAdmins })
	alice.Ask("#help", fmt.Sprintf("@ret #help %d", len(rows)))
	for _, c := range rows {
		if line := alice.Read(); splitWords(line, nil)[0] != c.name || !strings.HasSuffix(line, " "+c.help) {
			t.Errorf("help for %s is %q", c.name, line)
		}
	}
	for _, c := range rows {
		alice.Ask("#help "+strings.ToUpper(c.name[1:]), "@ret #help 2", strings.TrimSpace(c.name+" "+c.args), "  "+c.help)
	}
	if left := alice.Barrier(); len(left) > 0 {
		t.Errorf("help also sent %q", left)
	}
}

// TestLineLimitOverTheWire sends the longest line that there can be, and one
// byte more, also as a line of a message.
func TestLineLimitOverTheWire(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, x := srv.Guest("alice"), strings.Repeat("x", 1000-len("#broadcast \r\n"))
	alice.Ask("#broadcast "+x, `@mess #broadcast alice "`+x+`"`, "@status 0")
	alice.Raw("#broadcast " + x + "y\r\n")
	alice.Ended(`@mess #warning "line longer than 1000 bytes"`)
	alice = srv.Guest("alice")
	alice.Raw("#postmessage heading\r\n" + strings.Repeat("x", 1000))
	alice.Ended(`@mess #warning "line longer than 1000 bytes"`)
}

// TestHTTPIsClosed sends what browsers send; nothing in it is done.
func TestHTTPIsClosed(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	for _, method := range httpMethods {
		for _, before := range []string{"", "\r\n", "\x00"} {
			c := srv.Dial()
			c.Raw(before + method + "/ HTTP/1.1\r\nHost: x\r\n\r\n#login anon bob\r\n#broadcast spam\r\n")
			if before == "\r\n" { // so far that is a person who has only pressed Enter
				c.Expect(`@mess #warning "` + firstHint + `"`)
			}
			c.Ended()
		}
	}
	alice.Ask("GET / HTTP/1.1", "@status 3502") // not her first line
	alice.Ask("#listusers", "@ret #listusers 1", "alice anon")
}

func FuzzWords(f *testing.F) {
	for _, line := range []string{"", `a "b c" d`, `"a \" \\ \x`, "\t\"\"\t", `""""`, "\\", "é\u00a0\xff"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := splitWords(line, nil)
		if len(words) > len(line) {
			t.Fatalf("%d words out of %d bytes", len(words), len(line))
		}
		var quoted []byte
		for _, w := range words {
			quoted = append(appendQuoted(quoted, w), ' ')
		}
		if again := splitWords(string(quoted), nil); !slices.Equal(again, words) {
			t.Fatalf("%q, quoted, became %q", words, again)
		}
	})
}

func FuzzEncodeParse(f *testing.F) {
	for _, text := range []string{"", "plain", `a "b" \ c`, "tab\there", `\"`, "日本"} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		name, text = cleanLine([]byte(name)), cleanLine([]byte(text)) // as all that users send is
		line := appendLine(nil, "@mess", []cell{named(name), quoted(text)})
		if bytes.ContainsAny([]byte(name), "\"\\ \t") != bytes.HasPrefix(line, []byte(`@mess "`)) && name != "" {
			t.Fatalf("%q is quoted wrongly: %s", name, line)
		}
		want := []string{"@mess", name, text}
		if words := splitWords(strings.TrimSuffix(string(line), "\r\n"), nil); !slices.Equal(words, want) {
			t.Fatalf("%q was sent as %s and read as %q", want, line, words)
		}
	})
}

// FuzzCleanLine checks what nobody may be able to send to another's screen.
func FuzzCleanLine(f *testing.F) {
	for _, line := range hostileTexts {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		clean := cleanLine(line)
		if bad := unsafeFor(clean); bad != "" {
			t.Fatalf("cleanLine(%q) = %q holds %s", line, clean, bad)
		}
		if again := cleanLine([]byte(clean)); again != clean {
			t.Fatalf("a clean line %q changed to %q", clean, again)
		}
	})
}

func FuzzPackFields(f *testing.F) {
	f.Add([]byte("\x01a\x00\x02bc"), "one", "two")
	f.Add([]byte("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"), "", strings.Repeat("x", 200))
	f.Fuzz(func(t *testing.T, stored []byte, one, two string) {
		if fields, err := store.Unpack(stored, 0); err == nil {
			total := 0
			for _, field := range fields {
				total += len(store.Compact(field))
			}
			if total+len(fields) > len(stored) {
				t.Fatalf("%q was read as %q, which is more", stored, fields)
			}
		}
		want := []string{one, two, string(stored)}
		for i, field := range want { // a byte that is in no text stands for a replaced character
			want[i] = strings.ReplaceAll(field, "\xff", "\uFFFD")
		}
		if got, err := store.Unpack(store.Pack(want...), 3); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q came back as %q, %v", want, got, err)
		}
	})
}

// TestRowsAllocateNothing: a row's cells live on the stack, so that a long list
// costs no more than its bytes.
func TestRowsAllocateNothing(t *testing.T) {
	r := reply{line: make([]byte, 0, replyChunk)}
	rows := testing.AllocsPerRun(100, func() {
		r.line = r.line[:0]
		r.list("listusers", 1)
		r.row(named("a name"), word("regd"), num(12345), quoted("free text"))
	})
	if rows > 0 {
		t.Errorf("a row makes %v allocations", rows)
	}
}
