// Command tlogvectors is the other side of the tlog conformance test: programs that nobody here wrote.
//
//	go run . generate > ../vectors.json   trees, proofs, tiles and notes made by golang.org/x/mod/sumdb and
//	                                      github.com/transparency-dev/formats
//	go run . check DIR                    reads a log that ai-infra wrote (checkpoint, tiles, bundles, receipt) and
//	                                      verifies it with the same libraries
//
// The vectors are checked in, so the test itself needs neither Go nor a network.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	f_note "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const treeSize = 70000

type inclusion struct {
	Index int64    `json:"index"`
	Size  int64    `json:"size"`
	Proof []string `json:"proof"`
}

type consistency struct {
	Old   int64    `json:"old"`
	New   int64    `json:"new"`
	Proof []string `json:"proof"`
}

type noteVector struct {
	What  string   `json:"what"`
	Known []string `json:"known"`
	Note  string   `json:"note"`
	OK    bool     `json:"ok"`
}

type vectors struct {
	Entries     string            `json:"entries"`
	Roots       map[int64]string  `json:"roots"`
	Inclusion   []inclusion       `json:"inclusion"`
	Consistency []consistency     `json:"consistency"`
	TilePaths   map[string]string `json:"tile_paths"`
	Tiles       map[string]string `json:"tiles"`
	Notes       []noteVector      `json:"notes"`
	Receipt     map[string]string `json:"receipt"`
}

type store []tlog.Hash

func (s store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = s[index]
	}
	return out, nil
}

func entry(i int64) []byte { return fmt.Appendf(nil, "entry %d", i) }

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func hashes(list []tlog.Hash) []string {
	out := []string{}
	for _, h := range list {
		out = append(out, hex.EncodeToString(h[:]))
	}
	return out
}

// path turns x/mod's tile/8/<level>/... into tlog-tiles' tile/<level>/...
func path(t tlog.Tile) string { return strings.Replace(t.Path(), "tile/8/", "tile/", 1) }

func skey(name string, seed byte) (string, string) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	public := append([]byte{1}, private.Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(append([]byte(name+"\n"), public...))
	secret := append([]byte{1}, private.Seed()...)
	id := hex.EncodeToString(sum[:4])
	return "PRIVATE+KEY+" + name + "+" + id + "+" + base64.StdEncoding.EncodeToString(secret),
		name + "+" + id + "+" + base64.StdEncoding.EncodeToString(public)
}

func generate() {
	v := vectors{
		Entries: "entry i is the ASCII text 'entry <i>'",
		Roots:   map[int64]string{}, TilePaths: map[string]string{}, Tiles: map[string]string{},
	}
	var s store
	interesting := map[int64]bool{treeSize: true, 65535: true, 65536: true, 65537: true}
	for _, n := range []int64{255, 256, 257, 511, 512, 513, 600, 1000} {
		interesting[n] = true
	}
	for i := int64(0); i < treeSize; i++ {
		s = append(s, must(tlog.StoredHashes(i, entry(i), s))...)
		if n := i + 1; n <= 33 || interesting[n] {
			root := must(tlog.TreeHash(n, s))
			v.Roots[n] = hex.EncodeToString(root[:])
		}
	}
	for _, c := range [][2]int64{{0, 1}, {0, 2}, {1, 2}, {2, 3}, {0, 8}, {5, 7}, {6, 7}, {255, 256}, {256, 257}, {0, 257},
		{511, 513}, {17, 600}, {599, 600}, {512, 600}, {0, treeSize}, {69999, treeSize}, {65535, treeSize}, {65536, treeSize}, {12345, treeSize}} {
		p := must(tlog.ProveRecord(c[1], c[0], s))
		v.Inclusion = append(v.Inclusion, inclusion{c[0], c[1], hashes(p)})
	}
	for _, c := range [][2]int64{{1, 1}, {1, 2}, {2, 3}, {3, 4}, {3, 7}, {4, 7}, {6, 8}, {7, 8}, {1, 600}, {255, 256}, {256, 257},
		{256, 512}, {257, 513}, {300, 600}, {599, 600}, {600, treeSize}, {65536, treeSize}, {65535, 65536}, {69999, treeSize}} {
		p := must(tlog.ProveTree(c[1], c[0], s))
		v.Consistency = append(v.Consistency, consistency{c[0], c[1], hashes(p)})
	}
	for _, n := range []int64{0, 1, 999, 1000, 1234067, 999999999, 1000000000} {
		v.TilePaths[fmt.Sprintf("0 %d 256", n)] = path(tlog.Tile{H: 8, L: 0, N: n, W: 256})
		v.TilePaths[fmt.Sprintf("3 %d 17", n)] = path(tlog.Tile{H: 8, L: 3, N: n, W: 17})
	}
	for _, size := range []int64{600, treeSize} {
		for _, tile := range tlog.NewTiles(8, 0, size) {
			if tile.L == 0 && tile.W == 256 && tile.N > 1 {
				continue // one full tile is like another
			}
			sum := sha256.Sum256(must(tlog.ReadTileData(tile, s)))
			v.Tiles[path(tile)] = hex.EncodeToString(sum[:])
		}
	}
	notes(&v, s)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	if err := out.Encode(v); err != nil {
		log.Fatal(err)
	}
}

func notes(v *vectors, s store) {
	logSkey, logVkey := skey("example.com/log", 1)
	otherSkey, otherVkey := skey("example.com/other", 2)
	witnessSkey, witnessVkey := skey("witness.example/w1", 3)
	cosigVkey := must(f_note.VKeyToCosignatureV1(witnessVkey))
	logSigner, other := must(note.NewSigner(logSkey)), must(note.NewSigner(otherSkey))
	witness := must(f_note.NewSignerForCosignatureV1(witnessSkey))
	root := must(tlog.TreeHash(600, s))
	text := fmt.Sprintf("example.com/log\n600\n%s\n", root)
	one := must(note.Sign(&note.Note{Text: text}, logSigner))
	two := must(note.Sign(&note.Note{Text: text}, logSigner, other))
	cosigned := must(note.Sign(&note.Note{Text: text}, logSigner, witness))
	blank := must(note.Sign(&note.Note{Text: "a\n\nb\n"}, logSigner))
	forged := strings.Replace(string(one), "\n600\n", "\n601\n", 1)
	v.Notes = []noteVector{
		{"a log's checkpoint", []string{logVkey}, string(one), true},
		{"two signers, both known", []string{logVkey, otherVkey}, string(two), true},
		{"two signers, one known", []string{otherVkey}, string(two), true},
		{"a witness's cosignature, known", []string{logVkey, cosigVkey}, string(cosigned), true},
		{"only the witness is known", []string{cosigVkey}, string(cosigned), true},
		{"a text with an empty line", []string{logVkey}, string(blank), true},
		{"nobody is known", []string{otherVkey}, string(one), false},
		{"the text was changed", []string{logVkey}, forged, false},
		{"the text was changed, and an unknown key signed too", []string{logVkey}, strings.Replace(string(two), "\n600\n", "\n601\n", 1), false},
	}
	index := int64(17)
	receipt := proof.TLogProof{Index: uint64(index), Checkpoint: cosigned, ExtraData: []byte("extra information")}
	for _, h := range must(tlog.ProveRecord(600, index, s)) {
		receipt.Hashes = append(receipt.Hashes, h)
	}
	v.Receipt = map[string]string{
		"origin": "example.com/log", "log_key": logVkey, "witness_key": cosigVkey,
		"entry": string(entry(index)), "proof": string(receipt.Marshal()),
	}
}

// check reads DIR/{vkey,witness,checkpoint,receipt,entry} and DIR/tile/...
func check(dir string) {
	read := func(name string) []byte { return must(os.ReadFile(filepath.Join(dir, name))) }
	verifiers := note.VerifierList(
		must(note.NewVerifier(strings.TrimSpace(string(read("vkey"))))),
		must(f_note.NewVerifierForCosignatureV1(strings.TrimSpace(string(read("witness"))))))
	opened := must(note.Open(read("checkpoint"), verifiers))
	if len(opened.Sigs) != 2 {
		log.Fatalf("expected a log's and a witness's signature, got %d", len(opened.Sigs))
	}
	var origin, root64 string
	var size int64
	must(fmt.Sscanf(opened.Text, "%s\n%d\n%s\n", &origin, &size, &root64))
	root := must(tlog.ParseHash(root64))
	tree := tlog.Tree{N: size, Hash: root}
	var s store
	for i := int64(0); i < size; {
		bundle := must(os.ReadFile(bundlePath(dir, i/256, size)))
		for len(bundle) > 0 {
			n := int(bundle[0])<<8 | int(bundle[1])
			s = append(s, must(tlog.StoredHashes(i, bundle[2:2+n], s))...)
			bundle = bundle[2+n:]
			i++
		}
	}
	if must(tlog.TreeHash(size, s)) != root {
		log.Fatal("the entries do not lead to the checkpoint's root")
	}
	for _, tile := range tlog.NewTiles(8, 0, size) {
		if !bytes.Equal(read(path(tile)), must(tlog.ReadTileData(tile, s))) {
			log.Fatalf("tile %s differs", path(tile))
		}
	}
	var receipt proof.TLogProof
	if err := receipt.Unmarshal(read("receipt")); err != nil {
		log.Fatal(err)
	}
	var p tlog.RecordProof
	for _, h := range receipt.Hashes {
		p = append(p, h)
	}
	must(note.Open(receipt.Checkpoint, verifiers))
	if err := tlog.CheckRecord(p, tree.N, tree.Hash, int64(receipt.Index), tlog.RecordHash(read("entry"))); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %d entries, tiles, checkpoint, cosignature and receipt verify\n", origin, size)
}

func bundlePath(dir string, n, size int64) string {
	tile := tlog.Tile{H: 8, L: 0, N: n, W: int(min(256, size-n*256))}
	return filepath.Join(dir, strings.Replace(path(tile), "tile/0/", "tile/entries/", 1))
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "check" {
		check(os.Args[2])
		return
	}
	generate()
}
