package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// version and commit say what this program was built from; `make release` sets
// them.
var (
	version = "0.1.0"
	commit  = "" // "": what Go has noted
)

// protocolVersion is the version of the protocol that clients of 2001 speak.
const protocolVersion = "0.03"

// extensions are the capabilities that "#version" lists.
var extensions = []string{"help", "ping", "quit", "events", "auth", "owners", "admin"}

// maxLine is the longest line a client may send, in bytes, its line end
// included (docs/PROTOCOL.md, Lines).
const maxLine = 1000

// status is the number of an @status reply (docs/PROTOCOL.md, Status codes).
type status int

const (
	statusOK            status = 0
	statusUnknown       status = -1
	statusLimit         status = -2
	statusNotFound      status = -3
	statusInvalidName   status = -4
	statusNotEmpty      status = -5
	statusNoUserType    status = 3000
	statusNoAccount     status = 3001
	statusWrongPassword status = 3002
	statusNameInUse     status = 3003
	statusNameTaken     status = 3004
	statusBanned        status = 3005
	statusThrottled     status = 3006
	statusNoRoom        status = 3100
	statusRoomPassword  status = 3101
	statusRoomNameUsed  status = 3102
	statusNotOwner      status = 3103
	statusNoGroup       status = 3200
	statusGroupPassword status = 3201
	statusNoLogin       status = 3500
	statusNoGuests      status = 3501
	statusNoCommand     status = 3502
	statusDeleting      status = 3503
	statusBadArgs       status = 3504
	statusFlood         status = 3505
	statusNotAdmin      status = 3506
	statusSuspended     status = 3507
	statusDisabled      status = 3508
)

// text says what a status means, for people.
func (c status) text() string {
	text := map[status]string{
		statusOK: "done", statusLimit: "a limit of the server is reached", statusNotFound: "there is none",
		statusInvalidName: "that is no name that can be used", statusNotEmpty: "users are in it", statusNoUserType: "neither anon nor regd",
		statusNoAccount: "there is no such account", statusWrongPassword: "the password is wrong", statusNameInUse: "a guest has that name",
		statusNameTaken: "an account has that name", statusBanned: "banned", statusThrottled: "too many wrong passwords, or too many logins at once; try again later",
		statusNoRoom: "there is no such room", statusRoomPassword: "the room's password is wrong", statusRoomNameUsed: "that name is used",
		statusNotOwner: "only its owner may", statusNoGroup: "join a group first", statusGroupPassword: "the group's password is wrong",
		statusNoLogin: "log in first", statusNoGuests: "that needs an account, and a room to be in", statusNoCommand: "there is no such command",
		statusDeleting: "it is being deleted", statusBadArgs: "its words are not right; #help shows which it takes", statusFlood: "too many commands",
		statusNotAdmin: "only for administrators", statusSuspended: "the server is suspended", statusDisabled: "the settings do not allow that",
	}[c]
	if text == "" {
		return "the server failed; its log says why"
	}
	return text
}

// replyError is a command's failure as its sender sees it. With fatal set the
// connection ends after the text, which goes out as a warning.
type replyError struct {
	code  status
	text  string
	fatal bool
	cause error
}

// Error says what the log needs: the cause where there is one.
func (e *replyError) Error() string {
	if e.cause != nil {
		return e.cause.Error()
	}
	if e.text != "" {
		return e.text
	}
	return "status " + strconv.Itoa(int(e.code))
}

func (e *replyError) Unwrap() error { return e.cause }

// fail is a command's failure with no more to say than its number.
func fail(code status) error { return &replyError{code: code} }

// isStatus reports whether err is a failure with that number.
func isStatus(err error, code status) bool {
	var e *replyError
	return errors.As(err, &e) && e.code == code && !e.fatal
}

// fatal ends the connection after telling its user why.
func fatal(text string) error { return &replyError{text: text, fatal: true} }

// splitWords cuts a line into its words, appended to words. Quotes count at the
// start of a word only; inside them \" and \\ stand for the second character
// (docs/PROTOCOL.md, Words). The words share the line's memory where they can.
func splitWords(line string, words []string) []string {
	for {
		line = strings.TrimLeft(line, " \t")
		switch {
		case line == "":
			return words
		case line[0] == '"':
			word, rest := quotedWord(line[1:])
			words, line = append(words, word), rest
		default:
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
		}
	}
}

// quotedWord takes the word that an opening quote began; what is never closed
// ends with the line.
func quotedWord(s string) (word, rest string) {
	end := strings.IndexAny(s, `"\`)
	if end < 0 {
		return s, ""
	}
	if s[end] == '"' {
		return s[:end], s[end+1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// appendQuoted appends free text as the server shows it: always in quotes.
func appendQuoted(b []byte, text string) []byte {
	b = append(b, '"')
	for {
		i := strings.IndexAny(text, `"\`)
		if i < 0 {
			b = append(b, text...)
			return append(b, '"')
		}
		b = append(b, text[:i]...)
		b = append(b, '\\', text[i])
		text = text[i+1:]
	}
}

// appendName appends a name or a heading: in quotes only where it needs them.
func appendName(b []byte, name string) []byte {
	if name == "" || strings.ContainsAny(name, " \t\"\\") {
		return appendQuoted(b, name)
	}
	return append(b, name...)
}

// parseNumber reads a decimal number; one that is too large counts as the
// largest. ok is false for anything that is no number.
func parseNumber(word string) (n int64, ok bool) {
	digits := strings.TrimLeft(word, "+-")
	if digits == "" || len(word)-len(digits) > 1 || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil && word[0] != '-' {
		n = math.MaxInt64
	}
	return n, true
}

// isControl reports whether nobody else may see r: C0 and C1 controls (the tab
// aside), DEL, line and paragraph separators, and the characters that change
// the direction of what follows them.
func isControl(r rune) bool {
	switch {
	case r < 0x20:
		return r != '\t'
	case r < 0x7f:
		return false
	case r <= 0x9f:
		return true
	case r >= 0x2028 && r <= 0x202e:
		return true
	}
	return r >= 0x2066 && r <= 0x2069
}

// cleanLine is the text of a received line: control characters dropped, what is
// not UTF-8 replaced by U+FFFD, each byte by one.
func cleanLine(line []byte) string {
	if isPlain(line) {
		return string(line)
	}
	b := make([]byte, 0, len(line)+8)
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		if !isControl(r) {
			b = utf8.AppendRune(b, r)
		}
		line = line[n:]
	}
	return string(b)
}

// isPlain reports whether a line holds printable ASCII and tabs only.
func isPlain(line []byte) bool {
	for _, c := range line {
		if (c < 0x20 && c != '\t') || c >= 0x7f {
			return false
		}
	}
	return true
}

// httpMethods are how the first line of an HTTP request starts (RFC 9110
// section 9, RFC 5789, and the preface of RFC 9113).
var httpMethods = []string{
	"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH ", "PRI ",
}

// looksLikeHTTP reports whether a connection's first line was sent by a browser.
func looksLikeHTTP(line string) bool {
	for _, method := range httpMethods {
		if strings.HasPrefix(line, method) {
			return true
		}
	}
	return false
}

// because is a reason as it follows what was done; there may be none.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// statusLine is "@status <n>".
func statusLine(code status) []byte {
	b := append(make([]byte, 0, 16), "@status "...)
	return append(strconv.AppendInt(b, int64(code), 10), '\r', '\n')
}

// okLine is the most frequent reply, encoded once for all.
var okLine = statusLine(statusOK)

// cell is one word of a line that the server sends. What it is decides how it is
// shown; how, the line's look decides.
type cell struct {
	shape shape
	text  string
	num   int64
}

type shape uint8

const (
	shapeWord   shape = iota // never needs quotes
	shapeName                // in quotes only where it needs them
	shapeText                // always in quotes
	shapeNumber              // num instead of text
)

func word(w string) cell   { return cell{shape: shapeWord, text: w} }
func named(n string) cell  { return cell{shape: shapeName, text: n} }
func quoted(t string) cell { return cell{shape: shapeText, text: t} }
func num(n int64) cell     { return cell{shape: shapeNumber, num: n} }

// appendLine appends a line as programs get it: its head, unless that is empty, and
// its cells, with a space between each.
func appendLine(b []byte, head string, cells []cell) []byte {
	b = append(b, head...)
	for i, c := range cells {
		if i > 0 || head != "" {
			b = append(b, ' ')
		}
		switch c.shape {
		case shapeWord:
			b = append(b, c.text...)
		case shapeName:
			b = appendName(b, c.text)
		case shapeText:
			b = appendQuoted(b, c.text)
		case shapeNumber:
			b = strconv.AppendInt(b, c.num, 10)
		}
	}
	return append(b, '\r', '\n')
}
