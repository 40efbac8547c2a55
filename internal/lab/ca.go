//go:build linux

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// authority is a certification authority, made anew for every world.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const certDay = 24 * time.Hour

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := leaf("Lab Root")
	template.NotBefore, template.NotAfter = time.Now().Add(-400*certDay), time.Now().Add(400*certDay)
	template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return &authority{cert, key}
}

// leaf is the template of a certificate that is valid now.
func leaf(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"TLSRPT Lab"}, CommonName: name},
		NotBefore:             time.Now().Add(-10 * certDay),
		NotAfter:              time.Now().Add(80 * certDay),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
}

// issue makes the certificate that a host of this behaviour shows.
func (a *authority) issue(t testing.TB, host string, b Behaviour) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	if b == WrongName {
		host = "wrong.example.net"
	}
	template := leaf(host)
	template.DNSNames = []string{host}
	if b == Expired {
		template.NotBefore, template.NotAfter = time.Now().Add(-100*certDay), time.Now().Add(-3*certDay)
	}
	issuer, issuerKey := a.cert, a.key
	if b == SelfSigned {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

// pem is the authority's certificate as Postfix reads it.
func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// spki is the hexadecimal SHA-256 of a certificate's public key, as a TLSA
// record of selector 1 and matching type 1 has it (RFC 6698, section 2.1).
func spki(c tls.Certificate) string {
	sum := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
