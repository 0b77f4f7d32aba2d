package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/secure/bidirule"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

func TestUserNames(t *testing.T) {
	for word, want := range map[string]name{
		"alice":                 {"alice", "alice"},
		"Alice":                 {"Alice", "alice"},
		"a":                     {"a", "a"},
		`a"b\c`:                 {`a"b\c`, `a"b\c`},
		"--":                    {"--", "--"},
		"Zoë":                   {"Zoë", "zoë"},
		"Zoe\u0308":             {"Zoë", "zoë"}, // NFC
		"ＡＬＩＣＥ":                 {"ALICE", "alice"},
		"Иван":                  {"Иван", "иван"},
		"Αλίκη":                 {"Αλίκη", "αλίκη"},
		"Νίκος":                 {"Νίκος", "νίκοσ"}, // as ΝΊΚΟΣ
		"क्षि":                  {"क्षि", "क्षि"},   // marks of its own script
		"q\u0303":               {"q\u0303", "q\u0303"},
		"山田たろう":                 {"山田たろう", "山田たろう"},
		"山田タロウー":                {"山田タロウー", "山田タロウー"},
		"たろうタロウ":                {"たろうタロウ", "たろうタロウ"},
		"金한글":                   {"金한글", "金한글"},
		"иван2":                 {"иван2", "иван2"},
		"7日本":                   {"7日本", "7日本"},
		"(é)_":                  {"(é)_", "(é)_"},
		"אבג1":                  {"אבג1", "אבג1"},
		"hosts":                 {"hosts", "hosts"},
		strings.Repeat("a", 30): {strings.Repeat("a", 30), strings.Repeat("a", 30)},
		strings.Repeat("日", 30): {strings.Repeat("日", 30), strings.Repeat("日", 30)},
		strings.Repeat("e\u0301", 30): { // 60 code points before the preparation
			strings.Repeat("é", 30), strings.Repeat("é", 30)},
	} {
		if got, err := userName(word); err != nil || got != want {
			t.Errorf("userName(%q) = %q, %v, want %q", word, got, err, want)
		}
	}
}

func TestNoUserNames(t *testing.T) {
	for why, words := range map[string][]string{
		"it is empty":       {""},
		"it is too long":    {strings.Repeat("a", 31), strings.Repeat("日", 31), strings.Repeat("é", 31)},
		"it is the server":  {"-", "host", "Host", "HOST", "server", "System", "homeroom", "HomeRoom", "ｈｏｓｔ", "－"},
		"it has a space":    {"a b", " a", "a ", "a\tb", "a\u00a0b", "a\u3000b"},
		"it mixes scripts":  {"аdmin", "Αlice", "aliсe", "日本a", "한글たろう", "たろう한글山", "ивanova", "ab" + "ԁ", "alice\U00016fe4"},
		"it has a symbol":   {"a☺", "a→b", "“a”", "½", "™"},
		"it has a control":  {"a\x00", "a\u0085", "a\u200d", "a\u202e", "a\u2066"},
		"it is not UTF-8":   {"\xff", "a\xc3"},
		"both directions":   {"אa", "1א", "א_", "aא", "１א"},
		"a space stays one": {"¨"},
	} {
		for _, word := range words {
			if got, err := userName(word); !isStatus(err, statusInvalidName) {
				t.Errorf("%s, but userName(%q) = %q, %v", why, word, got, err)
			}
		}
	}
}

func TestPlaceNames(t *testing.T) {
	for word, want := range map[string]name{
		"den":                               {"den", "den"},
		"The Den":                           {"The Den", "the den"},
		"  The   Den ":                      {"The Den", "the den"},
		"The\u00a0Den\u3000":                {"The Den", "the den"},
		"host":                              {"host", "host"},
		"☺ рубka":                           {"☺ рубka", "☺ рубka"}, // a room may mix scripts
		"Ⅳ":                                 {"IV", "iv"},           // NFKC
		"Ϲ":                                 {"Σ", "σ"},             // no second name that is shown as Σ
		"Σας":                               {"Σας", "σασ"},
		strings.Repeat("r", 30):             {strings.Repeat("r", 30), strings.Repeat("r", 30)},
		"a" + strings.Repeat(" ", 40) + "b": {"a b", "a b"},
	} {
		if got, err := placeName(word); err != nil || got != want {
			t.Errorf("placeName(%q) = %q, %v, want %q", word, got, err, want)
		}
	}
	for _, word := range []string{
		"", " ", "\u3000", "-", " - ", "－", strings.Repeat("r", 31), "a\tb", "a\x1bb", "a\u202eb", "a\u2028b",
		"\xff", strings.Repeat("\ufdfa", 2), // 18 code points each, after NFKC
	} {
		if got, err := placeName(word); !isStatus(err, statusInvalidName) {
			t.Errorf("placeName(%q) = %q, %v, want -4", word, got, err)
		}
	}
}

func TestPreparePassword(t *testing.T) {
	for word, want := range map[string]string{
		"secret": "secret", " two  words ": " two  words ", "Pässwort": "Pässwort",
		"a\u00a0b": "a b", "e\u0301": "é", "☺": "☺",
		strings.Repeat("p", 100): strings.Repeat("p", 100),
		strings.Repeat("é", 50):  strings.Repeat("é", 50),
	} {
		if got, err := preparePassword(word); err != nil || got != want {
			t.Errorf("preparePassword(%q) = %q, %v, want %q", word, got, err, want)
		}
	}
	for _, word := range []string{"", strings.Repeat("p", 101), strings.Repeat("é", 51), "a\tb", "\x00"} {
		if got, err := preparePassword(word); !isStatus(err, statusBadArgs) {
			t.Errorf("preparePassword(%q) = %q, %v, want 3504", word, got, err)
		}
	}
}

// randomASCII is up to 40 characters from least to DEL.
func randomASCII(rng *rand.Rand, least byte) string {
	b := make([]byte, rng.IntN(40))
	for i := range b {
		b[i] = least + byte(rng.IntN(int(0x80-least)))
	}
	return string(b)
}

// TestASCIIWayIsPRECIS holds the short way for ASCII against the library.
func TestASCIIWayIsPRECIS(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		compareUserName(t, randomASCII(rng, '!'))
		compareUserName(t, randomASCII(rng, 0))
		comparePlaceName(t, randomASCII(rng, ' '))
		comparePlaceName(t, strings.ReplaceAll(randomASCII(rng, ' '), "a", " "))
		comparePassword(t, randomASCII(rng, ' '))
	}
}

// compareUserName checks userName against the PRECIS profiles and the rules of
// A4 that come on top.
func compareUserName(t *testing.T, word string) {
	t.Helper()
	got, err := userName(word)
	around := ""
	if bidirule.DirectionString(word) == bidi.LeftToRight {
		around = "q" // the package's Bidi rule wants a letter at the ends; q joins with nothing
	}
	shown, err1 := precis.UsernameCasePreserved.String(around + word + around)
	key, err2 := precis.UsernameCaseMapped.String(shown)
	want := name{without(shown, around), foldSigma(without(key, around))}
	refused := err1 != nil || err2 != nil || mixesScripts(want.key) || isReserved(want.key)
	compareName(t, word, got, err, want, refused)
}

// without is s without what was put around it.
func without(s, around string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, around), around)
}

// isReserved reports whether a name is one of the server's own.
func isReserved(key string) bool {
	return key == "host" || key == "server" || key == "system" || key == "homeroom"
}

func comparePlaceName(t *testing.T, word string) {
	t.Helper()
	got, err := placeName(word)
	shown, err1 := precis.Nickname.String(word)
	key, err2 := precis.Nickname.CompareKey(shown)
	compareName(t, word, got, err, name{shown, foldSigma(key)}, err1 != nil || err2 != nil)
}

// compareName checks a prepared name.
func compareName(t *testing.T, word string, got name, err error, want name, refused bool) {
	t.Helper()
	refused = refused || want.key == "-" || want.key == "" || len([]rune(want.shown)) > 30 || len([]rune(want.key)) > 30
	if refused {
		if !isStatus(err, statusInvalidName) {
			t.Fatalf("%q became %q, %v, want -4", word, got, err)
		}
		return
	}
	if err != nil || got != want {
		t.Fatalf("%q became %q, %v, want %q", word, got, err, want)
	}
	if bad := unsafeFor(got.shown); bad != "" {
		t.Fatalf("%q became %q, which holds %s", word, got, bad)
	}
}

func comparePassword(t *testing.T, word string) {
	t.Helper()
	got, err := preparePassword(word)
	want, refused := precis.OpaqueString.String(word)
	if refused != nil || want == "" || len(want) > 100 {
		if !isStatus(err, statusBadArgs) {
			t.Fatalf("the password %q became %q, %v, want 3504", word, got, err)
		}
	} else if err != nil || got != want {
		t.Fatalf("the password %q became %q, %v, want %q", word, got, err, want)
	}
}

// TestNamesMeanWhatIsShown prepares what is shown of a name once more, for each
// character that case, width or compatibility maps to another.
func TestNamesMeanWhatIsShown(t *testing.T) {
	tried := 0
	for r := rune(1); r <= unicode.MaxRune; r++ {
		c := string(r)
		if norm.NFKC.IsNormalString(c) && width.Fold.String(c) == c && unicode.ToLower(r) == r {
			continue
		}
		tried++
		for _, word := range []string{c, "a" + c, c + "\u0301", "σ" + c + "σ"} {
			meansItself(t, userName, word)
			meansItself(t, placeName, word)
		}
	}
	if tried < 5000 {
		t.Errorf("only %d characters were tried", tried)
	}
}

// meansItself checks that the name a word becomes is found under what is shown of it.
func meansItself(t *testing.T, prepare func(string) (name, error), word string) {
	t.Helper()
	if n, err := prepare(word); err == nil {
		if again, err := prepare(n.shown); err != nil || again != n {
			t.Fatalf("%q is shown as %q, which means %q, %v", word, n, again, err)
		}
	}
}

func FuzzUserName(f *testing.F) {
	for _, word := range []string{"alice", "Host", "Zoë", "аdmin", "ｈｏｓｔ", "İ", "ΣΑΣ", "a b", "日本", "\u0345"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if len(word) > 512 {
			return // longer than what the server looks at
		}
		compareUserName(t, word)
		meansItself(t, userName, word)
	})
}

func FuzzPlaceName(f *testing.F) {
	for _, word := range []string{"den", " The  Den", "a¨", "\ufdfa", "İ", "ΣΑΣ", "ſ", "\u3000x", "Ⅳ", "Ϲ"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if len(word) > 512 {
			return // longer than what the server looks at
		}
		comparePlaceName(t, word)
		meansItself(t, placeName, word)
	})
}
