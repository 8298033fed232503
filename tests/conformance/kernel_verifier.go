// The Kernel's second verifier, as its contract describes it: reads rows ordered by ts and a signers file, with
// encoding/json as its canonical form. Standard input is that of kernel_verifier.mjs, rows oldest first.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
)

type row struct {
	ID        string  `json:"id"`
	EventType string  `json:"event_type"`
	Payload   string  `json:"payload"`
	PrevHash  *string `json:"prev_hash"`
	Hash      string  `json:"hash"`
	Signature string  `json:"signature"`
	SignerID  string  `json:"signer_id"`
}

type signer struct {
	Kid       string `json:"signer_kid"`
	PublicKey string `json:"publicKey"`
}

func main() {
	var input struct {
		Signers []signer `json:"signers"`
		Rows    []row    `json:"rows"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		fail("input", err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, s := range input.Signers {
		raw, err := base64.StdEncoding.DecodeString(s.PublicKey)
		if err != nil {
			fail(s.Kid, err)
		}
		keys[s.Kid] = raw
	}
	previous := ""
	for n, r := range input.Rows {
		var payload any
		if err := json.Unmarshal([]byte(r.Payload), &payload); err != nil {
			fail(r.ID, err)
		}
		canonical, err := json.Marshal(payload) // keys sorted; <, >, &, U+2028, U+2029 escaped
		if err != nil {
			fail(r.ID, err)
		}
		var prev []byte
		if r.PrevHash != nil {
			if n > 0 && *r.PrevHash != previous {
				fail(r.ID, "prev_hash is not the hash of the row before")
			}
			prev, _ = hex.DecodeString(*r.PrevHash)
		}
		hash := sha256.Sum256(bytes.Join([][]byte{canonical, prev}, nil))
		if hex.EncodeToString(hash[:]) != r.Hash {
			fail(r.ID, "hash mismatch")
		}
		signature, _ := base64.StdEncoding.DecodeString(r.Signature)
		key, known := keys[r.SignerID]
		if !known || !ed25519.Verify(key, hash[:], signature) {
			fail(r.ID, "bad signature")
		}
		previous = r.Hash
	}
	fmt.Println(len(input.Rows))
}

func fail(id string, why any) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", id, why)
	os.Exit(1)
}
