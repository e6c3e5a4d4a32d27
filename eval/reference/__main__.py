from eval.files import run
from eval.reference.predict import main

if __name__ == "__main__":
    run(main)
