package main

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/bidirule"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// maxName is the longest name or heading: in code points, after preparation.
const maxName = 30

var errBadName = fail(statusInvalidName)

// The profiles of RFC 8265 sections 3.3 and 3.4 without the directionality rule: the
// package's own ones apply it to every name, and refuse 7日本.
var (
	userShown = precis.NewIdentifier(precis.FoldWidth, precis.Norm(norm.NFC))
	userKey   = precis.NewIdentifier(precis.FoldWidth, precis.LowerCase(), precis.Norm(norm.NFC))
)

// name is a prepared name: the form that is shown, and the key by which two names are
// compared. The key is made from the shown form, not from the word: the room Ϲ (U+03F9)
// is shown as Σ, but in lower case it would become ς first, and be another name.
type name struct{ shown, key string }

// userName prepares the name of a person: PRECIS UsernameCaseMapped (RFC 8265
// section 3.3), letters of one script only, not one of the server's own names.
func userName(word string) (name, error) {
	n := name{shown: word, key: strings.ToLower(word)}
	if !isASCII(word, '!') {
		shown, err1 := userShown.String(word)
		key, err2 := userKey.String(shown)
		if errors.Join(err1, err2) != nil || tooLong(key) || mixesDirections(key) || mixesScripts(key) {
			return name{}, errBadName
		}
		n = name{shown, foldSigma(key)}
	}
	switch n.key {
	case "host", "server", "system", "homeroom":
		return name{}, errBadName
	}
	return n.checked()
}

// newUserName prepares the name that a person wants to have from now on: it does not
// read as an address or a network, of which one is banned by the same word. Accounts
// that have such a name keep it.
func newUserName(word string) (name, error) {
	n, err := userName(word)
	if _, isNetwork := parseNetwork(n.shown); err != nil || isNetwork {
		return name{}, errBadName
	}
	return n, nil
}

// placeName prepares the name of a room or group, or a heading: PRECIS Nickname
// (RFC 8266).
func placeName(word string) (name, error) {
	n := name{shown: word, key: strings.ToLower(word)}
	if !isASCII(word, ' ') || strings.Trim(word, " ") != word || strings.Contains(word, "  ") {
		shown, err1 := precis.Nickname.String(word)
		key, err2 := precis.Nickname.CompareKey(shown)
		if errors.Join(err1, err2) != nil {
			return name{}, errBadName
		}
		n = name{shown, foldSigma(key)}
	}
	return n.checked()
}

// foldSigma makes one of the two small letters of the Greek Σ: in lower case ΝΙΚΟΣ has
// the other one than Νίκος is written with.
func foldSigma(key string) string { return strings.ReplaceAll(key, "ς", "σ") }

// checked applies the rules for all kinds of names to a prepared one.
func (n name) checked() (name, error) {
	if n.key == "" || n.key == "-" || tooLong(n.shown) || tooLong(n.key) {
		return name{}, errBadName
	}
	return n, nil
}

// tooLong reports whether a name has more than maxName code points.
func tooLong(s string) bool { return utf8.RuneCountInString(s) > maxName }

// isASCII reports whether s has only the ASCII characters from least to '~'. Every
// profile leaves such a string as it is (a test compares them).
func isASCII(s string, least byte) bool {
	for i := range len(s) {
		if s[i] < least || s[i] > '~' {
			return false
		}
	}
	return true
}

// mixesDirections reports whether s breaks the Bidi rule (RFC 5893 section 2), which
// applies only to names with something in them that is read from right to left.
func mixesDirections(s string) bool {
	return bidirule.DirectionString(s) == bidi.RightToLeft && !bidirule.ValidString(s)
}

// mixesScripts reports whether the letters of s, and the marks on them (some of which
// are invisible), come from more than one script. Han goes with the Japanese scripts,
// and with Hangul.
func mixesScripts(s string) bool {
	const japanese, korean = "Japanese", "Korean"
	seen := ""
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsMark(r) {
			continue
		}
		script := scriptOf(r)
		switch {
		case script == seen || script == "Common" || script == "Inherited" || script == "":
		case seen == "":
			seen = script
		case within(script, seen, "Han", "Hiragana", "Katakana", japanese):
			seen = japanese
		case within(script, seen, "Han", "Hangul", korean):
			seen = korean
		default:
			return true
		}
	}
	return false
}

// within reports whether both a and b are in the set.
func within(a, b string, set ...string) bool {
	return slices.Contains(set, a) && slices.Contains(set, b)
}

// scriptOf names the Unicode script of a letter or mark.
func scriptOf(r rune) string {
	if r < utf8.RuneSelf {
		return "Latin"
	}
	for script, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return script
		}
	}
	return ""
}
