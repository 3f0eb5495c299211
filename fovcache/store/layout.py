"""The names of a cache's files, in one place. docs/format.md describes each.

fovcache.json                          marker and schema
recipes/RECIPE.json                    recipe documents
features/FEATURE.json                  feature documents
shards/RECIPE/SHARD.safetensors        rows, named by the BLAKE3 of their bytes
manifests/RECIPE/BLOCK.json            what a block holds: the truth
plans/RECIPE/PLAN.safetensors          blocks that an unfinished build still owes
datasets/DATASET.safetensors           lists of samples
refs/NAME/TIME-DATASET.json            what a build named them, where they came from
leases/OWNER.json                      builders at work
index/RECIPE.safetensors               derived: sample key → block and row
tmp/                                   files being written
memo.sqlite                            derived: path and times → digest, of this machine
urls.sqlite                            derived: URL without secrets → version and digest, of this machine
scratch/                               downloads in use
"""

MARKER = "fovcache.json"
RECIPES = "recipes"
FEATURES = "features"
SHARDS = "shards"
MANIFESTS = "manifests"
PLANS = "plans"
DATASETS = "datasets"
REFS = "refs"
LEASES = "leases"
INDEX = "index"
MEMO = "memo.sqlite"
URL_MEMO = "urls.sqlite"
SCRATCH = "scratch"


def recipe_name(digest: str) -> str:
    """A recipe document's file."""
    return f"{RECIPES}/{digest}.json"


def feature_name(digest: str) -> str:
    """A feature document's file."""
    return f"{FEATURES}/{digest}.json"


def shard_name(recipe: str, digest: str) -> str:
    """A shard's file."""
    return f"{SHARDS}/{recipe}/{digest}.safetensors"


def manifest_name(recipe: str, block: str) -> str:
    """A block manifest's file."""
    return f"{MANIFESTS}/{recipe}/{block}.json"


def plan_name(recipe: str, digest: str) -> str:
    """A plan's file."""
    return f"{PLANS}/{recipe}/{digest}.safetensors"


def dataset_name(digest: str) -> str:
    """A dataset's file."""
    return f"{DATASETS}/{digest}.safetensors"


def stem(name: str) -> str:
    """A file's name without folder and ending: for most files the digest."""
    return name.rpartition("/")[2].partition(".")[0]
