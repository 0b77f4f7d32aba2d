package wire

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

// CertFile is the file in a server's data folder that has the certificate that it
// made for itself.
const CertFile = "tls.pem"

// TLS trusts the certificate that the server of a data folder has made, and
// nothing else.
func TLS(t testing.TB, folder string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, CertFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatal("the server's file has no certificate")
	}
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}
